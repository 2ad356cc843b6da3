//! The version of a task that clients see, and what they may require of it.

use std::fmt;

/// How often a task has changed: a term, and a count within all terms.
///
/// It is stored inside the record and never taken from a store, so it stays valid when the record
/// moves to another backend. Revisions of one task compare in the order of its changes. The term
/// rises when the right to write moves from one backend to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The term of the side that accepted the change.
    pub term: u32,
    /// The number of the change.
    pub rev: u64,
}

impl Revision {
    /// The revision of a new task in a term.
    #[must_use]
    pub fn first(term: u32) -> Self {
        Self { term, rev: 1 }
    }

    /// The revision of the next change, made in this term or in the one it has, whichever is later.
    #[must_use]
    pub fn next(self, term: u32) -> Self {
        Self {
            rev: self.rev.saturating_add(1),
            term: self.term.max(term),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.rev)
    }
}

/// The opaque validator of one state of a task, without quotes.
///
/// It is the [`Revision`], or a hash of the content for a record that has none because a foreign
/// writer stored it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityTag(Box<str>);

impl EntityTag {
    /// The tag of a revision.
    #[must_use]
    pub fn of_revision(revision: Revision) -> Self {
        Self(revision.to_string().into())
    }

    /// The tag of a record without a revision: a hash of its bytes.
    #[must_use]
    pub fn of_content(content: &[u8]) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(content);
        Self(format!("x{hash:016x}").into())
    }

    /// A tag as a client wrote it between the quotes.
    #[must_use]
    pub fn from_client(text: &str) -> Self {
        Self(text.into())
    }

    /// The tag as text, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client requires of a task before it is changed.
///
/// *Source:* RFC 9110, section 13.1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: a concurrent change is handled by reading again.
    None,
    /// One of these tags is the task's current one.
    Match(Vec<EntityTag>),
}

impl Precondition {
    /// Says whether a task with this tag may be changed.
    #[must_use]
    pub fn allows(&self, current: &EntityTag) -> bool {
        match self {
            Self::None => true,
            Self::Match(tags) => tags.contains(current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_term_beats_every_earlier_revision() {
        let old = Revision { term: 1, rev: 900 };
        let new = Revision { term: 2, rev: 3 };
        assert!(old < new);
        assert!(new < new.next(0) && new.next(0) < new.next(3));
    }

    #[test]
    fn a_content_tag_is_pinned() {
        assert_eq!(EntityTag::of_content(b"{}").as_str(), "x1349cde127705c16");
    }
}
