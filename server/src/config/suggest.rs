//! "Did you mean": the known name that is nearest to a mistyped one.

/// Most edits between a mistyped name and the one that is suggested.
const MAX_EDITS: usize = 3;

/// The nearest of some names, if one is near enough.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known.map(|name| (edits(typed, name), name));
    let best = rated.min_by_key(|(edits, _)| *edits)?;
    (best.0 <= MAX_EDITS && best.0 < best.1.len()).then_some(best.1)
}

/// The Levenshtein distance of two names, in bytes.
fn edits(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let known = ["listen", "log", "log_format"];
        assert_eq!(nearest("lisen", known.into_iter()), Some("listen"));
        assert_eq!(nearest("logformat", known.into_iter()), Some("log_format"));
        assert_eq!(nearest("completely_else", known.into_iter()), None);
    }
}
