//! Reads of keys, each by the command of its layout, and a second look at what holds another type.

use redis::{Pipeline, Value};
use task_core::domain::Timestamp;
use task_core::ports::{ETag, Key, Stored};

use super::answer::text;
use super::connection::Connection;
use super::error::{Effect, Failure};
use super::layout::Names;
use super::script::digest;

/// Most keys of one pipeline, so that an answer has at most 64 MiB.
const MOST_KEYS: usize = 64;

/// What is needed to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    /// Values that note their end themselves are read as of this time.
    pub(super) now: Timestamp,
}

impl Reader<'_> {
    pub(super) async fn one(self, key: &Key) -> Result<Option<Stored>, Failure> {
        let read = self.names.read(key);
        let answer = self.connection.command(&read, Effect::Read).await;
        match answer.and_then(|answer| self.names.stored(key, answer, self.now)) {
            // Apart on the heap: hardly anybody needs it.
            Err(failure) if failure.is_of_type() => Box::pin(self.look_again(key)).await,
            found => found,
        }
    }

    /// Reads several keys, each by a command of its own: `MGET` takes what is no string for missing.
    pub(super) async fn many(self, keys: &[Key]) -> Result<Vec<Option<Stored>>, Failure> {
        self.each(keys).await?.into_iter().collect()
    }

    /// Reads several keys, of which some may be unreadable.
    pub(super) async fn each(
        self,
        keys: &[Key],
    ) -> Result<Vec<Result<Option<Stored>, Failure>>, Failure> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MOST_KEYS) {
            let mut reads = Pipeline::with_capacity(keys.len());
            for key in keys {
                reads.add_command(self.names.read(key));
            }
            let answers = self.connection.pipeline(&reads, Effect::Read).await?;
            for (key, answer) in keys.iter().zip(answers) {
                found.push(match self.names.stored(key, answer, self.now) {
                    Err(failure) if failure.is_of_type() => Box::pin(self.look_again(key)).await,
                    stored => stored,
                });
            }
        }
        Ok(found)
    }

    /// Reads a key that is not of the layout's type, or was not a moment ago.
    async fn look_again(self, key: &Key) -> Result<Option<Stored>, Failure> {
        let names = self.names;
        let name = names.value(key);
        let mut looks = Pipeline::new();
        looks.cmd("GET").arg(&name);
        looks.cmd("TYPE").arg(&name);
        looks.add_command(names.read(key));
        let mut answers = self.connection.pipeline(&looks, Effect::Read).await?;
        let again = answers.pop().unwrap_or(Value::Nil);
        let found = answers.pop().unwrap_or(Value::Nil);
        if names.reads_strings()
            && let Some(Value::BulkString(value)) = answers.pop()
        {
            return Ok((!value.is_empty()).then(|| Stored {
                etag: ETag::new(digest(&value)),
                value: value.into(),
            }));
        }
        match names.stored(key, again, self.now) {
            Err(failure) if failure.is_of_type() => Err(Failure::OtherType {
                name,
                found: text(&found).unwrap_or("thing of no type").to_owned(),
                wanted: names.type_of_value(),
            }),
            stored => stored,
        }
    }
}
