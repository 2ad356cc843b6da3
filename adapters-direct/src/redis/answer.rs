//! What is looked for in an answer of the server.

use redis::Value;

use super::error::{Effect, Failure};

/// The parts of an array; none of anything else.
pub(super) fn parts(answer: &Value) -> &[Value] {
    if let Value::Array(parts) = answer {
        return parts;
    }
    &[]
}

/// The bytes of a string.
pub(super) fn bytes(answer: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = answer {
        return Some(bytes);
    }
    None
}

/// The text of a string or of a status.
pub(super) fn text(answer: &Value) -> Option<&str> {
    if let Value::SimpleString(text) = answer {
        return Some(text);
    }
    std::str::from_utf8(bytes(answer)?).ok()
}

/// Says whether an answer is this word.
pub(super) fn is(answer: &Value, word: &str) -> bool {
    text(answer) == Some(word)
}

/// The failure of an answer that has another shape than the command can have.
pub(super) fn unexpected(answer: &Value, effect: Effect) -> Failure {
    // A value of somebody's may be in it: no more of that than tells what kind of answer it is.
    let answer = format!("{answer:?}").chars().take(80).collect();
    Failure::Answer { answer, effect }
}
