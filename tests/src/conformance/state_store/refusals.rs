//! What a backend cannot do, it refuses: promise S21.

use std::time::Duration;

use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Expect, Guard, Kind, PendingId, PortError,
    PutOptions, StateCapability, StateStore, Write, WriteMode,
};

use super::{
    Subject, create, delete_matching, event, holds, key, matching, overwrite, put, put_write, text,
};
use crate::conformance::{Failure, Verdict, refused};

/// Every operation that needs an undeclared capability is refused and does nothing.
pub async fn undeclared_state_capabilities_are_refused(subject: Subject) -> Verdict {
    let store = &*subject.store;
    for capability in StateCapability::ALL {
        if !store.capabilities().has(*capability) {
            refuses(store, *capability).await?;
        }
    }
    Ok(())
}

/// Says whether an operation exists that a backend without the capability can refuse.
#[must_use]
pub fn can_be_refused(capability: StateCapability) -> bool {
    capability != StateCapability::Durable
}

/// Proves that a store refuses what needs this capability.
///
/// # Errors
/// The first operation that was not refused as `Unsupported`, or that did something all the same.
pub async fn refuses(store: &dyn StateStore, capability: StateCapability) -> Verdict {
    store.put(&key("kept"), text("old"), overwrite()).await?;
    match capability {
        StateCapability::ConditionalWrites => conditional_writes(store).await?,
        StateCapability::Ttl => ttl(store).await?,
        StateCapability::Tombstones => tombstones(store).await?,
        StateCapability::Transactions => {
            let mut commit = Commit::of(put_write("kept", "lost", overwrite()));
            commit.writes.push(put_write("new", "lost", overwrite()));
            unsupported(store.commit(commit).await, "a commit of two writes")?;
        }
        StateCapability::UniqueVersions => versions_come_back(store).await?,
        StateCapability::Outbox => outbox(store).await?,
        StateCapability::Publishes => publishing(store).await?,
        StateCapability::Guards => guards(store).await?,
        StateCapability::Scan => {
            unsupported(store.scan(Kind::TASK, None, 10).await, "scan")?;
        }
        StateCapability::Durable => {}
    }
    holds(store, "kept", Some("old")).await?;
    holds(store, "new", None).await
}

fn unsupported<T: std::fmt::Debug>(
    result: Result<T, PortError>,
    what: &str,
) -> Result<(), Failure> {
    refused(result, ErrorKind::Unsupported, what).map(drop)
}

async fn conditional_writes(store: &dyn StateStore) -> Verdict {
    let (kept, new, etag) = (key("kept"), key("new"), ETag::new("1"));
    unsupported(store.put(&new, text("x"), create()).await, "create")?;
    let put = store.put(&kept, text("x"), matching(&etag)).await;
    unsupported(put, "match")?;
    let delete = store.delete(&kept, delete_matching(&etag)).await;
    unsupported(delete, "a deletion by match")?;
    for options in [create(), matching(&etag)] {
        let commit = Commit::of(put_write("new", "x", options));
        unsupported(store.commit(commit).await, "a conditional commit")?;
    }
    let commit = Commit::of(Write::Delete {
        key: kept,
        options: delete_matching(&etag),
    });
    unsupported(store.commit(commit).await, "a conditional deletion")
}

async fn ttl(store: &dyn StateStore) -> Verdict {
    let options = PutOptions {
        mode: WriteMode::Overwrite,
        ttl: Some(Duration::from_secs(60)),
    };
    let put = store.put(&key("new"), text("x"), options.clone()).await;
    unsupported(put, "a put with a ttl")?;
    let commit = Commit::of(put_write("new", "x", options));
    unsupported(store.commit(commit).await, "a commit with a ttl")
}

async fn tombstones(store: &dyn StateStore) -> Verdict {
    let options = DeleteOptions {
        mode: DeleteMode::Any,
        tombstone: Some(Duration::from_secs(60)),
    };
    let delete = store.delete(&key("kept"), options.clone()).await;
    unsupported(delete, "a deletion with a tombstone")?;
    let commit = Commit::of(Write::Delete {
        key: key("kept"),
        options,
    });
    unsupported(store.commit(commit).await, "a commit with a tombstone")
}

/// Shows that a value which comes back has its old version, so that a stale match takes effect.
async fn versions_come_back(store: &dyn StateStore) -> Verdict {
    if !store.capabilities().has(StateCapability::ConditionalWrites) {
        return Ok(());
    }
    let same = key("same");
    let first = put(store, &same, "a", overwrite()).await?;
    store.put(&same, text("b"), overwrite()).await?;
    store.put(&same, text("a"), overwrite()).await?;
    store.put(&same, text("c"), matching(&first)).await?;
    Ok(())
}

async fn outbox(store: &dyn StateStore) -> Verdict {
    unsupported(store.pending(None, 10).await, "pending")?;
    unsupported(store.settle(&[PendingId::new("1")]).await, "settle")?;
    publishing(store).await
}

/// Without `outbox` and `publishes` an event has no way to go.
async fn publishing(store: &dyn StateStore) -> Verdict {
    let capabilities = store.capabilities();
    if capabilities.has(StateCapability::Outbox) || capabilities.has(StateCapability::Publishes) {
        return Ok(());
    }
    let commit = Commit::of(put_write("new", "x", overwrite())).event(event("lost"));
    unsupported(store.commit(commit).await, "a commit with an event")
}

async fn guards(store: &dyn StateStore) -> Verdict {
    let raise = PutOptions {
        mode: WriteMode::Raise,
        ttl: None,
    };
    let put = store.put(&key("new"), text("x"), raise.clone()).await;
    unsupported(put, "raise")?;
    let at_most = DeleteOptions {
        mode: DeleteMode::AtMost(text("z")),
        tombstone: None,
    };
    let delete = store.delete(&key("kept"), at_most.clone()).await;
    unsupported(delete, "a deletion of what is not greater")?;
    let guard = Guard {
        key: key("nothing"),
        expect: Expect::Absent,
    };
    let commits = [
        Commit::of(put_write("new", "x", raise)),
        Commit::of(put_write("new", "x", overwrite())).guard(guard),
        Commit::of(Write::Delete {
            key: key("kept"),
            options: at_most,
        }),
    ];
    for commit in commits {
        unsupported(store.commit(commit).await, "a commit that needs guards")?;
    }
    Ok(())
}
