//! The rules that can be read off a source file, each a function from path and text to violations.

/// Longest source file, in lines.
const MAX_FILE_LINES: usize = 600;

/// Longest function, from its `fn` to its closing brace, in lines.
const MAX_FUNCTION_LINES: usize = 70;

/// Where a rule is broken, and how.
pub(crate) type Violations = Vec<String>;

/// A rule over the path of a file, relative to the workspace, and its text.
pub(crate) type Rule = fn(&str, &str) -> Violations;

pub(crate) fn file_is_short(path: &str, text: &str) -> Violations {
    let lines = text.lines().count();
    let long = lines > MAX_FILE_LINES;
    long.then(|| format!("{path} has {lines} lines, the limit is {MAX_FILE_LINES}"))
        .into_iter()
        .collect()
}

pub(crate) fn functions_are_short(path: &str, text: &str) -> Violations {
    let mut violations = Vec::new();
    let code = without_strings_and_comments(text);
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        if !begins_a_function(line) {
            continue;
        }
        let Some(length) = length_of_body(&lines[start..]) else {
            continue;
        };
        if length > MAX_FUNCTION_LINES {
            violations.push(format!(
                "{path}:{} is a function of {length} lines, the limit is {MAX_FUNCTION_LINES}",
                start + 1
            ));
        }
    }
    violations
}

fn begins_a_function(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let modifier = |word: &&str| {
        matches!(*word, "async" | "const" | "unsafe" | "extern" | "in")
            || word.starts_with("pub")
            || word.ends_with(')')
    };
    let rest = words.iter().skip_while(|word| modifier(word));
    rest.take(2)
        .collect::<Vec<_>>()
        .first()
        .is_some_and(|word| **word == "fn")
}

/// Lines from the first to the one that closes the first brace; `None` for a body-less signature.
fn length_of_body(lines: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    for (number, line) in lines.iter().enumerate() {
        for character in line.chars() {
            match character {
                ';' if depth == 0 && !line.contains('[') => return None,
                '{' => depth += 1,
                '}' if depth == 1 => return Some(number + 1),
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

/// The same lines, with blanks for comments and for what stands in quotes.
pub(crate) fn without_strings_and_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = quoted_length(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let lines = rest[..length].matches('\n');
        code.push_str(&"\n".repeat(lines.count()));
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

/// Length of the comment or literal that begins here, or 0.
fn quoted_length(rest: &str, before: Option<char>) -> usize {
    let end_of = |from: usize, end: &str| {
        let found = rest[from..].find(end);
        found.map_or(rest.len(), |at| from + at + end.len())
    };
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return end_of(2, "*/");
    }
    if !in_word && let Some(raw) = rest.strip_prefix("br").or(rest.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let open = rest.len() - raw.len() + hashes + 1;
            return end_of(open, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if let Some(text) = rest.strip_prefix('"') {
        return 1 + escaped_length(text, '"');
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    0
}

/// Length up to and with the closing quote.
fn escaped_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a character literal; 0 for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest[1..].char_indices();
    match characters.next() {
        Some((_, '\\')) => 1 + escaped_length(&rest[1..], '\''),
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 2,
            Some(_) | None => 0,
        },
        None => 0,
    }
}

pub(crate) fn nothing_is_printed_or_left_undone(path: &str, text: &str) -> Violations {
    let prints = path.starts_with("tests/")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.contains("/examples/")
        || path.starts_with("server/src/cli");
    let mut banned = vec!["dbg!(", "todo!(", "unimplemented!("];
    if !prints {
        banned.extend(["println!(", "print!(", "eprintln!(", "eprint!("]);
    }
    let code = without_strings_and_comments(text);
    found_in(path, &code, &banned)
}

fn found_in(path: &str, code: &str, banned: &[&str]) -> Violations {
    let mut violations = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for word in banned {
            let alone = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
            };
            if line.match_indices(word).any(|(at, _)| alone(at)) {
                violations.push(format!("{path}:{} has {word}", number + 1));
            }
        }
    }
    violations
}

pub(crate) fn names_say_what_is_inside(path: &str, text: &str) -> Violations {
    const BANNED: [&str; 4] = ["utils", "common", "helpers", "prelude"];
    let mut violations = Vec::new();
    let mut parts = path.split('/').map(|part| part.trim_end_matches(".rs"));
    if let Some(name) = parts.find(|part| BANNED.contains(part)) {
        violations.push(format!("{path} is called {name}"));
    }
    for line in without_strings_and_comments(text).lines() {
        let mut words = line
            .split([' ', ';', '{'])
            .skip_while(|word| *word != "mod");
        if let Some(name) = words.nth(1)
            && BANNED.contains(&name)
        {
            violations.push(format!("{path} has a module {name}"));
        }
    }
    violations
}

pub(crate) fn sources_say_what_they_are_for(path: &str, text: &str) -> Violations {
    let is_source = path.contains("src/") || path.contains("tests/");
    let documented = text.starts_with("//!") || text.starts_with("#![doc = include_str!(");
    if is_source && !documented {
        return vec![format!("{path} does not begin with a module doc")];
    }
    Violations::new()
}

pub(crate) fn mocks_say_how_often(path: &str, text: &str) -> Violations {
    let code = without_strings_and_comments(text);
    let mut violations = Vec::new();
    for (at, _) in code.match_indices(".expect_") {
        let statement = code[at..].split(';').next().unwrap_or_default();
        // `Result::expect_err` is no expectation of a mock.
        let is_mock = !statement.starts_with(".expect_err(");
        if is_mock && !statement.contains(".times(") {
            let line = code[..at].matches('\n').count() + 1;
            violations.push(format!("{path}:{line} expects without .times("));
        }
    }
    violations
}

pub(crate) fn no_test_is_ignored(path: &str, text: &str) -> Violations {
    let code = without_strings_and_comments(text);
    found_in(path, &code, &["#[ignore]", "#[ignore "])
}

/// Says whether a file holds more than comments.
pub(crate) fn has_code(text: &str) -> bool {
    !without_strings_and_comments(text).trim().is_empty()
}

/// Files that every folder of an adapter has; `paths` are all paths of the workspace.
pub(crate) fn adapter_folders_are_alike(paths: &[&str]) -> Violations {
    const ROOT: &str = "adapters-direct/src/";
    let inside = paths.iter().filter_map(|path| path.strip_prefix(ROOT));
    let mut folders: Vec<&str> = inside
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    folders.sort_unstable();
    folders.dedup();
    let mut violations = Vec::new();
    for folder in folders {
        for file in ["mod.rs", "config.rs", "error.rs"] {
            let path = format!("{ROOT}{folder}/{file}");
            if !paths.contains(&path.as_str()) {
                violations.push(format!("{path} is missing"));
            }
        }
    }
    violations
}

/// Implementations of a port by a wrapper that could miss a method.
///
/// A wrapper is what calls its own port on a field named `inner`.
pub(crate) fn wrappers_forward_every_method(path: &str, text: &str) -> Violations {
    let code = without_strings_and_comments(text);
    let mut violations = Vec::new();
    for port in ["StateStore", "EventBus", "Notifier", "SecretStore"] {
        let heading = format!(" {port} for ");
        for (at, _) in code.match_indices(&heading) {
            let line_start = code[..at].rfind('\n').map_or(0, |at| at + 1);
            if !code[line_start..].starts_with("impl") {
                continue;
            }
            let body = &code[at..];
            let body = &body[..body.find("\n}").unwrap_or(body.len())];
            let attributes = &code[code[..line_start].rfind("\n\n").unwrap_or(0)..line_start];
            let denies = attributes.contains("deny(clippy::missing_trait_methods)")
                || code.contains("#![deny(clippy::missing_trait_methods)]");
            if body.contains("self.inner") && !denies {
                violations.push(format!("{path} wraps {port} and may miss a method"));
            }
        }
    }
    violations
}
