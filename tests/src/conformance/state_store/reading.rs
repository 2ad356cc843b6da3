//! Reading and writing without conditions: promises S1 to S6.

use bytes::Bytes;
use task_core::ports::{
    Commit, ErrorKind, Key, Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES, StateStore, Write,
};

use super::{OTHER, Subject, delete_any, key, overwrite, put_write, read, text};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

/// A read gives back the very bytes that the last successful write put.
pub async fn get_returns_the_bytes_that_were_put(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let values: [&[u8]; 4] = [
        b"plain",
        &[0, 0xff, 0xfe, b'\n', 0x80, 0],
        "{\"title\": \"\u{e4}\u{1f600}\",  \"n\": 1.0}".as_bytes(),
        b"\"quoted\"",
    ];
    let one = key("t-1");
    for (index, value) in values.into_iter().enumerate() {
        let value = Bytes::from_static(value);
        store.put(&one, value.clone(), overwrite()).await?;
        ensure_eq!(read(store, &one).await?.value, value, "after an overwrite");

        let other = key(&format!("t-new-{index}"));
        let write = Write::Put {
            key: other.clone(),
            value: value.clone(),
            options: overwrite(),
        };
        store.commit(Commit::of(write)).await?;
        ensure_eq!(read(store, &other).await?.value, value, "after a commit");
    }
    Ok(())
}

/// A key that was never written has no value, and that is no error.
pub async fn a_missing_key_reads_as_none(subject: Subject) -> Verdict {
    let store = &*subject.store;
    store.put(&key("there"), text("x"), overwrite()).await?;
    let missing = key("not-there");
    ensure_eq!(store.get(&missing).await?, None, "get of a missing key");
    let answers = store.get_many(std::slice::from_ref(&missing)).await?;
    ensure_eq!(answers, [None], "get_many of a missing key");
    Ok(())
}

/// Keys differ if their kinds or ids differ in any byte, and none is part of another.
pub async fn keys_that_look_alike_are_different(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let ids = [
        "a", "A", "a ", " a", "a/b", "a:b", "a||b", "a.b", "a*", "a?", "a%2Fb", "a_b", "a-b", "ab",
        "../a", "a'b", "\u{e4}", "a\u{308}", "1", "01", "{a}", "a\n", "task/a", "null",
    ];
    let mut keys: Vec<Key> = Vec::new();
    for kind in [Kind::TASK, OTHER, Kind::new("tas")] {
        keys.extend(ids.iter().map(|id| Key::new(kind, *id)));
    }
    keys.extend(["k/a", "ka", "k:a", "k||a"].map(|id| Key::new(Kind::new("tas"), id)));

    for key in &keys {
        ensure_eq!(store.get(key).await?, None, "{key:?} before its first put");
        store.put(key, value_of(key), overwrite()).await?;
    }
    all_present(store, &keys).await?;
    while let Some(gone) = keys.pop() {
        store.delete(&gone, delete_any()).await?;
        ensure_eq!(store.get(&gone).await?, None, "{gone:?} after its deletion");
    }
    Ok(())
}

fn value_of(key: &Key) -> Bytes {
    text(&format!("{key:?}"))
}

async fn all_present(store: &dyn StateStore, keys: &[Key]) -> Verdict {
    for key in keys {
        ensure_eq!(read(store, key).await?.value, value_of(key), "{key:?}");
    }
    Ok(())
}

/// `get_many` answers once a key, in the order of the keys, also for keys that repeat.
pub async fn get_many_answers_in_the_order_of_its_keys(subject: Subject) -> Verdict {
    let store = &*subject.store;
    for id in ["a", "b", "c"] {
        store.put(&key(id), text(id), overwrite()).await?;
    }
    let asked = ["c", "missing", "a", "c", "b", "missing", "a"];
    let keys = asked.map(key);
    let answers = store.get_many(&keys).await?;
    let found: Vec<Option<Bytes>> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|stored| stored.value.clone()))
        .collect();
    let expected = asked.map(|id| (id != "missing").then(|| text(id)));
    ensure_eq!(found, expected, "the answers");
    for (key, answer) in keys.iter().zip(&answers) {
        ensure_eq!(*answer, store.get(key).await?, "get_many and get of {key}");
    }
    ensure_eq!(store.get_many(&[]).await?, [], "get_many of no keys");
    Ok(())
}

/// What is empty or one byte too long is refused as `Invalid`; the largest allowed key and value are kept.
pub async fn limits_are_refused_and_the_largest_is_stored(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let longest = key(&"k".repeat(MAX_KEY_BYTES));
    let largest: Bytes = (0..MAX_VALUE_BYTES).map(|n| (n % 251) as u8).collect();
    store.put(&longest, largest.clone(), overwrite()).await?;
    ensure!(
        read(store, &longest).await?.value == largest,
        "the largest value was changed"
    );

    let too_large = Bytes::from(vec![b'v'; MAX_VALUE_BYTES + 1]);
    for value in [too_large, Bytes::new()] {
        let what = format!("a value of {} bytes", value.len());
        let result = store.put(&key("v"), value.clone(), overwrite()).await;
        refused(result, ErrorKind::Invalid, &format!("a put of {what}"))?;
        let write = Write::Put {
            key: key("v"),
            value,
            options: overwrite(),
        };
        let result = store.commit(Commit::of(write)).await;
        refused(result, ErrorKind::Invalid, &format!("a commit of {what}"))?;
    }
    ensure_eq!(store.get(&key("v")).await?, None, "after the refusals");

    for id in [String::new(), "k".repeat(MAX_KEY_BYTES + 1)] {
        let what = format!("a key of {} bytes", id.len());
        let result = store.put(&key(&id), text("x"), overwrite()).await;
        refused(result, ErrorKind::Invalid, &format!("a put to {what}"))?;
        let result = store.delete(&key(&id), delete_any()).await;
        refused(result, ErrorKind::Invalid, &format!("a deletion of {what}"))?;
        let commit = Commit::of(put_write(&id, "x", overwrite()));
        let result = store.commit(commit).await;
        refused(result, ErrorKind::Invalid, &format!("a commit to {what}"))?;
    }
    Ok(())
}

/// A deletion without a condition succeeds, whether the key has a value or not.
pub async fn a_deletion_removes_and_may_be_repeated(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    store.put(&one, text("x"), overwrite()).await?;
    store.put(&key("t-2"), text("y"), overwrite()).await?;
    for attempt in 1..=3 {
        let result = store.delete(&one, delete_any()).await;
        result.map_err(|error| Failure::new(format!("deletion {attempt}: {error}")))?;
        ensure_eq!(store.get(&one).await?, None, "after deletion {attempt}");
    }
    let write = Write::Delete {
        key: one.clone(),
        options: delete_any(),
    };
    store.commit(Commit::of(write)).await?;
    super::holds(store, "t-2", Some("y")).await?;
    store.put(&one, text("again"), overwrite()).await?;
    super::holds(store, "t-1", Some("again")).await
}
