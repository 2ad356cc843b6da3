//! The use cases of the Task API.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::turns::Turns;
use super::{Origin, Outbox, TaskError, TaskRecord, is_nothing, task_event};
use crate::domain::{
    Draft, EntityTag, EventType, IdempotencyKey, Precondition, Revision, Status, Task, TaskEvent,
    TaskId, Timestamp,
};
use crate::ports::{
    Clock, Commit, DeleteMode, DeleteOptions, ETag, Entropy, ErrorKind, Key, Kind, PortError,
    PutOptions, StateCapability, Stored, Write, WriteMode,
};

/// How often a change is tried against writers of other processes.
const MAX_ATTEMPTS: u32 = 16;

/// Pause before the second attempt; it doubles, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How long a deleted task's id refuses to be created again by its idempotency key: for ever.
///
/// A second task of the same id would repeat the event ids and the tags of the first one.
const FOR_EVER: Duration = Duration::MAX;

/// How long any other deleted id refuses writers that began before the deletion: ten times the longest
/// request. Dapr would take their stale version for a new task.
const LATE_WRITES: Duration = Duration::from_secs(300);

/// A task and the validator of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// The task.
    pub task: Task,
    /// Its tag, for `ETag` and `If-Match`.
    pub tag: EntityTag,
}

/// Creates, reads, changes and deletes tasks.
///
/// A change that returns `Ok` has its event pending in the store; one that returns an error has none,
/// unless the error says that its outcome is unknown.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use task_core::application::{Outbox, TaskService};
/// use task_core::domain::{Draft, Precondition, Priority, Status, Title};
/// use task_core::memory::{ManualClock, MemoryStateStore, SeededEntropy};
///
/// let clock = Arc::new(ManualClock::default());
/// let store = Arc::new(MemoryStateStore::new(clock.clone()));
/// let outbox = Arc::new(Outbox::new(store).unwrap());
/// let tasks = TaskService::new(outbox, clock, Arc::new(SeededEntropy::new(1))).unwrap();
///
/// let title = Title::parse("write the report".to_owned()).unwrap();
/// let draft = Draft { title, description: None, priority: Priority::default() };
/// let created = tasks.create(draft, None).await.unwrap();
/// let done = tasks
///     .set_status(&created.task.id, Status::Completed, &Precondition::Match(vec![created.tag]))
///     .await
///     .unwrap();
/// assert_eq!(done.task.status, Status::Completed);
/// # });
/// ```
#[derive(Debug)]
pub struct TaskService {
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    turns: Turns,
    /// Whether the store can remember deletions.
    remembers: bool,
    terms: Option<Arc<dyn Terms>>,
}

/// Tells in which term changes are made: a part of every [`Revision`].
///
/// A move between backends begins a new one whenever the right to write moves, or may have been lost.
pub trait Terms: fmt::Debug + Send + Sync {
    /// The present term.
    fn term(&self) -> u32;
}

impl TaskService {
    /// A service over an outbox.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn new(
        outbox: Arc<Outbox>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, PortError> {
        let capabilities = outbox.store().capabilities();
        capabilities.require(StateCapability::ConditionalWrites, "task service", "open")?;
        let remembers = capabilities.has(StateCapability::Tombstones);
        Ok(Self {
            outbox,
            clock,
            entropy,
            turns: Turns::new(),
            remembers,
            terms: None,
        })
    }

    /// The same service with changes in these terms; otherwise all are in term 0.
    #[must_use]
    pub fn in_terms(self, terms: Arc<dyn Terms>) -> Self {
        Self {
            terms: Some(terms),
            ..self
        }
    }

    fn term(&self) -> u32 {
        self.terms.as_ref().map_or(0, |terms| terms.term())
    }

    /// Creates a pending task. The same key with the same draft answers what it answered first.
    ///
    /// # Errors
    /// `KeyReused` for a key that came with another draft, `Deleted` when its task is gone, `Store`.
    pub async fn create(
        &self,
        draft: Draft,
        key: Option<&IdempotencyKey>,
    ) -> Result<TaskView, TaskError> {
        let now = self.clock.now();
        let revision = Revision::first(self.term());
        let (id, origin) = match key {
            Some(key) => {
                let origin = Origin {
                    request: fingerprint(&draft),
                    term: revision.term,
                };
                (TaskId::for_idempotency_key(key), Some(origin))
            }
            None => (self.fresh_id(now), None),
        };
        let request = origin.as_ref().map(|origin| origin.request.clone());
        let task = Task::create(id, draft, now);
        let record = TaskRecord::new(task, revision, origin);
        let written = self
            .write(&record, WriteMode::Create, EventType::Created, revision)
            .await;
        match (written, request) {
            (Ok(()), _) => Ok(view(record)),
            (Err(error), Some(request)) if error.is_conflict() => {
                self.replay(record.task, &request).await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Answers a create whose key was used before.
    async fn replay(&self, task: Task, request: &str) -> Result<TaskView, TaskError> {
        let Some((record, _)) = self.find(&task.id).await? else {
            return Err(TaskError::Deleted);
        };
        let Some(origin) = &record.origin else {
            // A foreign writer dropped what we knew of the request: its present state is all there is.
            return Ok(view(record));
        };
        if origin.request != request {
            return Err(TaskError::KeyReused);
        }
        let tag = EntityTag::of_revision(Revision::first(origin.term));
        let task = Task::create(task.id, task.draft, record.task.created_at);
        Ok(TaskView { task, tag })
    }

    /// Reads a task.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub async fn get(&self, id: &TaskId) -> Result<TaskView, TaskError> {
        Ok(view(self.load(id).await?.0))
    }

    /// Moves a task to a status. A task that has it already stays as it is, without an event.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`, `Contended`, `Store`.
    pub async fn set_status(
        &self,
        id: &TaskId,
        status: Status,
        precondition: &Precondition,
    ) -> Result<TaskView, TaskError> {
        self.change(id, precondition, |task, now| task.set_status(status, now))
            .await
    }

    /// Replaces what a client may edit. A draft that changes nothing leaves no event.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`, `Contended`, `Store`.
    pub async fn edit(
        &self,
        id: &TaskId,
        draft: Draft,
        precondition: &Precondition,
    ) -> Result<TaskView, TaskError> {
        self.change(id, precondition, |task, now| task.edit(draft.clone(), now))
            .await
    }

    /// Deletes a task, for ever: its id is not used again.
    ///
    /// Without a precondition also what is stored under its id and cannot be read: nobody else could remove it.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`, `Contended`, `Store`.
    pub async fn delete(&self, id: &TaskId, precondition: &Precondition) -> Result<(), TaskError> {
        let _turn = self.turns.take(id).await;
        for attempt in 1..=MAX_ATTEMPTS {
            let is_unconditional = matches!(precondition, Precondition::None);
            let (may_return, mode) = match self.stored(id).await {
                Ok(None) => return Err(TaskError::NotFound),
                Ok(Some(Stored { value, etag })) => {
                    let may_return = match decode(id, &value) {
                        Ok(record) => {
                            check(precondition, &record)?;
                            // Only a key can make an id again; a foreign writer may have dropped what tells.
                            record.origin.is_some() || record.revision.is_none()
                        }
                        Err(_) if is_unconditional => true,
                        Err(error) => return Err(error.into()),
                    };
                    (may_return, DeleteMode::Match(etag))
                }
                // What is there has no version that could be matched.
                Err(error) if is_unconditional && error.kind() == ErrorKind::Corrupt => {
                    (true, DeleteMode::Any)
                }
                Err(error) => return Err(error.into()),
            };
            let keep = if may_return { FOR_EVER } else { LATE_WRITES };
            let options = DeleteOptions {
                mode,
                tombstone: self.remembers.then_some(keep),
            };
            match self.outbox.store().delete(&key_of(id), options).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_conflict() => self.pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(TaskError::Contended {
            attempts: MAX_ATTEMPTS,
        })
    }

    async fn change(
        &self,
        id: &TaskId,
        precondition: &Precondition,
        apply: impl Fn(&mut Task, Timestamp) -> Option<EventType> + Send + Sync,
    ) -> Result<TaskView, TaskError> {
        let _turn = self.turns.take(id).await;
        for attempt in 1..=MAX_ATTEMPTS {
            let (mut record, etag) = self.load(id).await?;
            check(precondition, &record)?;
            let now = self.clock.now();
            let Some(event_type) = apply(&mut record.task, now) else {
                return Ok(view(record));
            };
            let revision = record.advance(now, self.term());
            let mode = WriteMode::Match(etag);
            match self.write(&record, mode, event_type, revision).await {
                Ok(()) => return Ok(view(record)),
                Err(error) if error.is_conflict() => self.pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(TaskError::Contended {
            attempts: MAX_ATTEMPTS,
        })
    }

    /// Writes a record together with the event of its change.
    async fn write(
        &self,
        record: &TaskRecord,
        mode: WriteMode,
        event_type: EventType,
        revision: Revision,
    ) -> Result<(), PortError> {
        let put = Write::Put {
            key: key_of(&record.task.id),
            value: record.encode(),
            options: PutOptions { mode, ttl: None },
        };
        let event = TaskEvent::of(&record.task, event_type);
        let commit = Commit::of(put).event(task_event(&event, revision));
        self.outbox.commit(commit).await.map(drop)
    }

    async fn load(&self, id: &TaskId) -> Result<(TaskRecord, ETag), TaskError> {
        self.find(id).await?.ok_or(TaskError::NotFound)
    }

    async fn find(&self, id: &TaskId) -> Result<Option<(TaskRecord, ETag)>, PortError> {
        let Some(Stored { value, etag }) = self.stored(id).await? else {
            return Ok(None);
        };
        Ok(Some((decode(id, &value)?, etag)))
    }

    async fn stored(&self, id: &TaskId) -> Result<Option<Stored>, PortError> {
        let stored = self.outbox.store().get(&key_of(id)).await?;
        Ok(stored.filter(|stored| !is_nothing(&stored.value)))
    }

    fn fresh_id(&self, now: Timestamp) -> TaskId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        TaskId::from_time(now.unix_millis(), &random)
    }

    async fn pause(&self, attempt: u32) {
        let pause = FIRST_PAUSE * (1 << attempt.min(7));
        tokio::time::sleep(self.entropy.jitter(pause)).await;
    }
}

fn decode(id: &TaskId, value: &[u8]) -> Result<TaskRecord, PortError> {
    let key = key_of(id);
    let corrupt = || PortError::new(ErrorKind::Corrupt, "task service", "get");
    let record = TaskRecord::decode(value).map_err(|error| {
        let corrupt = corrupt().context(format!("{key} cannot be read"));
        corrupt.caused_by(error)
    })?;
    match record.task.id == *id {
        true => Ok(record),
        false => Err(corrupt().context(format!("{key} holds {}", record.task.id))),
    }
}

fn key_of(id: &TaskId) -> Key {
    Key::new(Kind::TASK, id.as_str())
}

fn view(record: TaskRecord) -> TaskView {
    TaskView {
        tag: record.tag().clone(),
        task: record.task,
    }
}

fn check(precondition: &Precondition, record: &TaskRecord) -> Result<(), TaskError> {
    if precondition.allows(record.tag()) {
        return Ok(());
    }
    Err(TaskError::PreconditionFailed {
        current: record.tag().clone(),
    })
}

/// A hash of what a create asks for, whatever its bytes looked like.
fn fingerprint(draft: &Draft) -> String {
    let meaning = serde_json::json!([
        draft.title.as_str(),
        draft.description,
        draft.priority.get()
    ]);
    let digest = Sha256::digest(meaning.to_string().as_bytes());
    digest
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
