//! Entity tags in headers: `ETag`, `If-Match`, `If-None-Match`.
//!
//! *Source:* RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2.

use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use task_core::domain::{EntityTag, Precondition};

use super::error::Problem;

/// A list of entity tags as a client sent it.
#[derive(Debug, PartialEq, Eq)]
enum Tags<'a> {
    /// `*`, alone.
    Any,
    /// Tags without quotes, each with whether it is strong.
    List(Vec<(bool, &'a str)>),
}

/// What `If-Match` requires; weak tags never match, `*` is met by every task that exists.
///
/// # Errors
/// 400 when the header is malformed.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match parse(headers, &IF_MATCH)? {
        None | Some(Tags::Any) => Ok(Precondition::None),
        Some(Tags::List(tags)) => {
            let strong = tags.into_iter().filter(|(strong, _)| *strong);
            let tags = strong.map(|(_, tag)| EntityTag::from_client(tag));
            Ok(Precondition::Match(tags.collect()))
        }
    }
}

/// Says whether the client already has the state with this tag, by weak comparison.
///
/// # Errors
/// 400 when the header is malformed.
pub(super) fn is_known(headers: &HeaderMap, current: &EntityTag) -> Result<bool, Problem> {
    Ok(match parse(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::List(tags)) => tags.iter().any(|(_, tag)| *tag == current.as_str()),
    })
}

/// A tag with its quotes; `None` for one that no header can carry, which none of ours is.
pub(super) fn header_value(tag: &EntityTag) -> Option<HeaderValue> {
    let mut quoted = String::with_capacity(tag.as_str().len() + 2);
    quoted.push('"');
    quoted.push_str(tag.as_str());
    quoted.push('"');
    HeaderValue::from_maybe_shared(Bytes::from(quoted)).ok()
}

fn parse<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Tags<'a>>, Problem> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let mut tags = Vec::new();
    let mut any = false;
    for line in lines {
        // Bytes above 0x7e are allowed in a tag, but none of ours has them.
        let text = line.to_str().map_err(|_| malformed(name))?;
        if text.trim() == "*" {
            any = true;
        } else {
            read_list(text, &mut tags).ok_or_else(|| malformed(name))?;
        }
    }
    match (any, tags.is_empty()) {
        (true, true) => Ok(Some(Tags::Any)),
        (false, false) => Ok(Some(Tags::List(tags))),
        (true, false) | (false, true) => Err(malformed(name)),
    }
}

/// Reads `"a", W/"b"`; empty elements are allowed, as in every list of HTTP.
fn read_list<'a>(mut rest: &'a str, tags: &mut Vec<(bool, &'a str)>) -> Option<()> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(());
        }
        let (strong, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (false, quoted),
            None => (true, rest),
        };
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if tag.contains([' ', '\t']) {
            return None;
        }
        tags.push((strong, tag));
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

fn malformed(name: &HeaderName) -> Problem {
    let name = if *name == IF_MATCH {
        "If-Match"
    } else {
        "If-None-Match"
    };
    Problem::bad_request(format!(
        "{name} must be * or a list of entity tags in double quotes, for example \"0.1\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_str(line).expect("a header value");
            headers.append(name, value);
        }
        headers
    }

    fn matches(tags: &[&str]) -> Precondition {
        Precondition::Match(tags.iter().map(|tag| EntityTag::from_client(tag)).collect())
    }

    #[test]
    fn if_match_reads_lists_and_leaves_out_weak_tags() {
        let read = |lines: &[&str]| if_match(&headers(&IF_MATCH, lines)).expect("well formed");
        assert_eq!(read(&[]), Precondition::None);
        assert_eq!(read(&["*"]), Precondition::None);
        assert_eq!(read(&["\"0.1\""]), matches(&["0.1"]));
        assert_eq!(read(&["\"a\" , W/\"b\",, \"c,d\""]), matches(&["a", "c,d"]));
        assert_eq!(read(&["\"a\"", "\"b\""]), matches(&["a", "b"]));
        assert_eq!(read(&["W/\"a\""]), matches(&[]));
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for bad in [
            "",
            "0.1",
            "\"a",
            "a\"",
            "w/\"a\"",
            "\"a\" \"b\"",
            "*, \"a\"",
            "\"a b\"",
            ",",
        ] {
            assert!(
                if_match(&headers(&IF_MATCH, &[bad])).is_err(),
                "{bad:?} was accepted"
            );
        }
        assert!(if_match(&headers(&IF_MATCH, &["*", "\"a\""])).is_err());
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let tag = EntityTag::from_client("0.1");
        let known = |line| is_known(&headers(&IF_NONE_MATCH, &[line]), &tag).expect("well formed");
        assert!(known("*") && known("\"0.1\"") && known("\"x\", W/\"0.1\""));
        assert!(!known("\"0.2\""));
    }
}
