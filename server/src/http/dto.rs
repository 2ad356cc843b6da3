//! What travels over HTTP: the draft that clients send, the task that they get.
//!
//! A draft is read field by field, so that all its problems are reported at once. Unknown fields are
//! ignored, as the replaced service did, and of a repeated field the last one counts.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use task_core::domain::{Draft, FieldError, Priority, Task, Title};
use utoipa::ToSchema;

use super::error::Problem;

/// Longest part of a refused value that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// What a client may say about a task. Other fields are ignored.
#[derive(Debug, ToSchema)]
#[schema(as = TaskDraft)]
#[expect(dead_code, reason = "it describes what `parse_draft` reads")]
pub(crate) struct DraftBody {
    /// The title, counted in Unicode scalar values.
    #[schema(min_length = 1, max_length = 200, example = "write the report")]
    title: String,
    /// A longer text.
    #[schema(required = false)]
    description: Option<String>,
    /// The priority; 1 when it is left out.
    #[schema(minimum = 1, maximum = 5, default = 1, required = false)]
    priority: i64,
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskBody<'a> {
    /// The identity, fixed for ever.
    #[schema(example = "0970f17a-0bfc-4705-925f-febe243dbe99", max_length = 128)]
    id: &'a str,
    /// The title.
    #[schema(example = "write the report")]
    title: &'a str,
    /// A longer text, or null.
    #[schema(required = true)]
    description: Option<&'a str>,
    /// Where the task stands.
    #[schema(value_type = StatusName)]
    status: &'static str,
    /// The priority. A task that another program stored may lie outside 1 to 5.
    #[schema(example = 1)]
    priority: i64,
    /// When the task was created, in UTC with microseconds.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime, example = "2026-11-21T02:08:47.911595Z")]
    created_at: task_core::domain::Timestamp,
    /// When it last changed, in UTC with microseconds.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime, example = "2026-11-21T02:08:47.911595Z")]
    updated_at: task_core::domain::Timestamp,
}

/// Where a task stands.
#[derive(Debug, ToSchema)]
#[schema(as = Status, rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes `task_core::domain::Status`")]
pub(crate) enum StatusName {
    /// Not begun.
    Pending,
    /// Being worked on.
    InProgress,
    /// Done.
    Completed,
}

impl<'a> From<&'a Task> for TaskBody<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            id: task.id.as_str(),
            title: task.draft.title.as_str(),
            description: task.draft.description.as_deref(),
            status: task.status.as_str(),
            priority: task.draft.priority.get(),
            created_at: task.created_at,
            updated_at: task.updated_at,
        }
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads a draft.
///
/// # Errors
/// 400 when the text is not JSON; 422 with every field that breaks a rule.
pub(super) fn parse_draft(text: &str) -> Result<Draft, Problem> {
    let fields = match serde_json::from_str(text) {
        Ok(Shape::Object(fields)) => fields,
        Ok(Shape::Other(found)) => {
            let detail = format!("the body is a JSON object, not {found}");
            return Err(Problem::invalid(vec![FieldError::new("", detail)]));
        }
        Err(error) => {
            // Its message repeats no more of the body than single characters.
            return Err(Problem::bad_request(format!(
                "the body is not JSON: {error}"
            )));
        }
    };
    let mut errors = Vec::new();
    let title = keep(title(fields.title), &mut errors);
    let description = keep(description(fields.description), &mut errors);
    let priority = keep(priority(fields.priority), &mut errors);
    match (title, description, priority) {
        (Some(title), Some(description), Some(priority)) => Ok(Draft {
            title,
            description,
            priority,
        }),
        (None, _, _) | (_, None, _) | (_, _, None) => Err(Problem::invalid(errors)),
    }
}

fn keep<T>(parsed: Result<T, FieldError>, errors: &mut Vec<FieldError>) -> Option<T> {
    parsed.map_err(|error| errors.push(error)).ok()
}

fn title(raw: Option<&RawValue>) -> Result<Title, FieldError> {
    let Some(raw) = raw else {
        return Err(FieldError::new("title", "a title is required"));
    };
    Title::parse(string("title", raw)?)
}

fn description(raw: Option<&RawValue>) -> Result<Option<String>, FieldError> {
    match raw {
        None => Ok(None),
        Some(raw) if raw.get() == "null" => Ok(None),
        Some(raw) => string("description", raw).map(Some),
    }
}

fn priority(raw: Option<&RawValue>) -> Result<Priority, FieldError> {
    let Some(raw) = raw else {
        return Ok(Priority::default());
    };
    let text = raw.get();
    if let Ok(value) = text.parse::<i64>() {
        return Priority::parse(value);
    }
    // `3.0` and `3e0` are the integer 3 to JSON Schema and to the replaced service.
    let number = text.parse::<f64>().ok().filter(|_| is_number(text));
    let in_range = f64::from(i32::MIN)..=f64::from(i32::MAX);
    match number {
        #[expect(clippy::cast_possible_truncation, reason = "an integer of 32 bits")]
        Some(value) if value.fract() == 0.0 && in_range.contains(&value) => {
            Priority::parse(value as i64)
        }
        _ => Err(FieldError::new(
            "priority",
            format!(
                "a priority is an integer of {} to {}, not {}",
                Priority::MIN,
                Priority::MAX,
                shown(raw)
            ),
        )),
    }
}

fn string(field: &'static str, raw: &RawValue) -> Result<String, FieldError> {
    if !raw.get().starts_with('"') {
        let detail = format!("a {field} is a string, not {}", shown(raw));
        return Err(FieldError::new(field, detail));
    }
    // What is left to refuse is an escape that is no character, such as a lone surrogate.
    serde_json::from_str(raw.get())
        .map_err(|error| FieldError::new(field, format!("a {field} is Unicode text: {error}")))
}

/// A refused value as a message repeats it.
fn shown(raw: &RawValue) -> String {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        _ => raw.get().chars().take(MAX_SHOWN_CHARS).collect(),
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// A JSON text: the fields of an object, or the word for what it is instead.
enum Shape<'a> {
    Object(Fields<'a>),
    Other(&'static str),
}

#[derive(Default)]
struct Fields<'a> {
    title: Option<&'a RawValue>,
    description: Option<&'a RawValue>,
    priority: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Shape<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

/// The names of a draft's fields; anything else is ignored.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Title,
    Description,
    Priority,
    #[serde(other)]
    Unknown,
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key()? {
            match name {
                Name::Title => fields.title = Some(map.next_value()?),
                Name::Description => fields.description = Some(map.next_value()?),
                Name::Priority => fields.priority = Some(map.next_value()?),
                Name::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Shape::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Other("an array"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Shape::Other("a string"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Shape::Other("a boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Shape::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Shape::Other("null"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn status_of(text: &str) -> u16 {
        match parse_draft(text) {
            Ok(_) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    fn priority_of(text: &str) -> i64 {
        let body = format!(r#"{{"title":"a","priority":{text}}}"#);
        parse_draft(&body).expect("a valid draft").priority.get()
    }

    #[test]
    fn what_may_be_left_out_has_its_default() {
        let draft = parse_draft(r#"{"title":"a"}"#).expect("a valid draft");
        assert_eq!((draft.description, draft.priority.get()), (None, 1));
        let null = r#"{"title":"a","description":null}"#;
        assert_eq!(parse_draft(null).expect("a valid draft").description, None);
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_last_of_a_repeated_one_counts() {
        let text = r#"{"id":"x","created_at":{"a":[1e999]},"title":7,"title":"b"}"#;
        assert_eq!(
            parse_draft(text).expect("a valid draft").title.as_str(),
            "b"
        );
        assert_eq!(status_of(r#"{"title":"b","title":7}"#), 422);
    }

    #[test]
    fn an_integer_is_an_integer_however_it_is_written() {
        assert_eq!(["3", "3.0", "3e0", "0.3e1"].map(priority_of), [3; 4]);
        for bad in [
            "3.5",
            "0",
            "6",
            "-1",
            "null",
            "\"3\"",
            "true",
            "[3]",
            "{}",
            "1e400",
            "99999999999999999999",
        ] {
            let body = format!(r#"{{"title":"a","priority":{bad}}}"#);
            assert_eq!(status_of(&body), 422, "{bad} was accepted");
        }
    }

    #[test]
    fn what_is_no_json_is_400_and_what_is_no_object_is_422() {
        for bad in [
            "",
            "{",
            "{\"title\":}",
            "nul",
            "{}x",
            "\u{feff}{}",
            "{\"a\":\"\n\"}",
        ] {
            assert_eq!(status_of(bad), 400, "{bad:?}");
        }
        for bad in [
            "null",
            "1",
            "-1",
            "1.5",
            "true",
            "\"a\"",
            "[]",
            "[{\"title\":\"a\"}]",
            "{}",
        ] {
            assert_eq!(status_of(bad), 422, "{bad:?}");
        }
    }

    #[test]
    fn a_lone_surrogate_is_named_and_not_stored() {
        assert_eq!(status_of(r#"{"title":"\ud800"}"#), 422);
        assert_eq!(status_of(r#"{"title":"a","description":"\ud800"}"#), 422);
    }

    #[test]
    fn a_deep_body_is_read_without_recursion() {
        let deep = format!(
            r#"{{"title":"a","x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(status_of(&deep), 200);
    }
}
