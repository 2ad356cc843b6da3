//! What is looked for in an answer of the server.

use redis::{FromRedisValue, Value, from_redis_value};

use super::error::{Effect, Failure};

/// Characters of an answer that a failure repeats: a value of somebody's may be in it, and no more of that is shown than
/// tells what kind of answer it is.
const MAX_SHOWN: usize = 80;

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

/// An answer, or a part of one, as what it has to be.
pub(super) fn converted<T: FromRedisValue>(answer: Value, effect: Effect) -> Result<T, Failure> {
    from_redis_value(answer).map_err(|error| not_understood(&error.to_string(), effect))
}

/// The failure of an answer that has another shape than the command can have.
pub(super) fn unexpected(answer: &Value, effect: Effect) -> Failure {
    not_understood(&format!("{answer:?}"), effect)
}

/// The failure of an answer that is described so.
pub(super) fn not_understood(answer: &str, effect: Effect) -> Failure {
    let answer = answer.chars().take(MAX_SHOWN).collect();
    Failure::Answer { answer, effect }
}

/// What a script has found that is no record, if an answer is that.
pub(super) fn corrupt(answer: &Value) -> Option<Failure> {
    let [word, name, why] = parts(answer) else {
        return None;
    };
    let text = |part| text(part).unwrap_or_default();
    is(word, "corrupt").then(|| Failure::Corrupt(format!("{} {}", text(name), text(why))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_of_an_answer_is_shown_however_it_is_misunderstood() {
        let secret = "x".repeat(MAX_SHOWN) + "hunter2";
        let answer = Value::BulkString(secret.into_bytes());
        for failure in [
            converted::<u64>(answer.clone(), Effect::Write).expect_err("no number"),
            unexpected(&answer, Effect::Write),
        ] {
            let shown = failure.into_port("receive").to_string();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
