//! What this adapter calls a version: Dapr's ETag, and what must be known to write over it.

use std::fmt;

use task_core::ports::ETag;

/// A version of one key.
///
/// Its text is `{etag}.{mark of the key}` and, where they apply, `t` and `p`. The mark is there because
/// `state.redis` creates a missing key whatever ETag is asked for: a version of another key must not get
/// that far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// What Dapr calls it.
    pub(super) etag: Box<str>,
    /// The value has a limit, so that it may be gone without a trace.
    pub(super) is_limited: bool,
    /// The record carries events.
    pub(super) has_events: bool,
}

impl Version {
    /// Reads what [`to_etag`](Self::to_etag) wrote; `None` for a version that this key never had.
    pub(super) fn read(name: &str, etag: &ETag) -> Option<Self> {
        let (etag, rest) = etag.as_str().rsplit_once('.')?;
        let flags = rest.strip_prefix(&Mark::of(name).to_string())?;
        let is_limited = flags.starts_with('t');
        let has_events = flags.ends_with('p');
        let version = Self {
            etag: etag.into(),
            is_limited,
            has_events,
        };
        (!etag.is_empty() && version.flags() == flags).then_some(version)
    }

    pub(super) fn to_etag(&self, name: &str) -> ETag {
        ETag::new(format!("{}.{}{}", self.etag, Mark::of(name), self.flags()))
    }

    fn flags(&self) -> &'static str {
        match (self.is_limited, self.has_events) {
            (false, false) => "",
            (true, false) => "t",
            (false, true) => "p",
            (true, true) => "tp",
        }
    }
}

/// A short digest of a name.
struct Mark(u32);

impl Mark {
    /// FNV-1a, 32 bits: it guards against mistakes, not against anybody.
    fn of(name: &str) -> Self {
        let step = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self(name.bytes().fold(0x811c_9dc5, step))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_back_from_its_text_and_belongs_to_one_key() {
        for (is_limited, has_events) in [(false, false), (true, false), (false, true), (true, true)]
        {
            let version = Version {
                etag: "0a.7".into(),
                is_limited,
                has_events,
            };
            let etag = version.to_etag("task-7");
            assert_eq!(Version::read("task-7", &etag).as_ref(), Some(&version));
            assert_eq!(Version::read("task-8", &etag), None, "{etag:?}");
        }
        let mark = Mark::of("task-7");
        for foreign in [
            "".to_owned(),
            "7".to_owned(),
            format!(".{mark}"),
            format!("7.{mark}x"),
            format!("7.{mark}pt"),
        ] {
            assert_eq!(
                Version::read("task-7", &ETag::new(&*foreign)),
                None,
                "{foreign}"
            );
        }
    }
}
