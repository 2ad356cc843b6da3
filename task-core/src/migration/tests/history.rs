//! What clients did and were told, and whether one register a key explains it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// The content that a write makes; `None` is a missing record.
pub(super) type Content = Option<String>;

/// What a client was told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    Unknown,
}

#[derive(Debug, Clone)]
pub(super) struct Wrote {
    pub(super) base: Content,
    pub(super) made: Content,
    /// Distinguishes deletions.
    pub(super) name: String,
    pub(super) told: Told,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) saw: Content,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

/// The history of one key, which is created once, changed, and deleted once.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) writes: Vec<Wrote>,
    pub(super) reads: Vec<Read>,
}

impl History {
    /// The contents that the key had, one after the other, and the names of the writes that made them.
    ///
    /// # Panics
    /// With what no order of the calls explains.
    pub(super) fn explain(&self, last: &Content) -> Vec<(Content, String)> {
        let seen: BTreeSet<&Content> = self
            .reads
            .iter()
            .map(|read| &read.saw)
            .chain([last])
            .collect();
        let bases: BTreeSet<&Content> = self.writes.iter().map(|write| &write.base).collect();
        let has_effect = |write: &&Wrote| {
            let is_seen = seen.contains(&write.made) || bases.contains(&write.made);
            write.told == Told::Done || (write.made.is_some() && is_seen)
        };
        let mut chain = vec![(None, String::new())];
        let mut is_deleted = false;
        loop {
            let (now, _) = chain.last().expect("it begins with nothing").clone();
            if is_deleted {
                break;
            }
            let next = self.writes.iter().filter(|write| write.base == now);
            let next: Vec<&Wrote> = next.filter(has_effect).collect();
            assert!(next.len() <= 1, "one of these was lost: {next:#?}");
            match next.first() {
                Some(write) => {
                    is_deleted = write.made.is_none();
                    chain.push((write.made.clone(), write.name.clone()));
                }
                None => break,
            }
        }
        // A deletion whose answer was lost has taken effect if the record is gone.
        let (end, _) = chain.last().expect("it begins with nothing").clone();
        if last.is_none() && end.is_some() {
            let unknown = self
                .writes
                .iter()
                .find(|write| write.base == end && write.made.is_none());
            let write = unknown.unwrap_or_else(|| panic!("{end:?} is gone, and nobody deleted it"));
            chain.push((None, write.name.clone()));
        }
        let on_chain: BTreeSet<&String> = chain.iter().map(|(_, name)| name).collect();
        for write in self.writes.iter().filter(|write| write.told == Told::Done) {
            assert!(
                on_chain.contains(&write.name),
                "acknowledged and lost: {write:#?}"
            );
        }
        let (end, _) = chain.last().expect("it begins with nothing");
        assert_eq!(end, last, "the last content is not the last write's");
        self.check_reads(&chain);
        chain
    }

    /// A read sees nothing older than what was told before it began.
    fn check_reads(&self, chain: &[(Content, String)]) {
        let place_of: BTreeMap<&str, usize> = chain
            .iter()
            .enumerate()
            .map(|(n, (_, name))| (&**name, n))
            .collect();
        for read in &self.reads {
            let least = self.told_before(read.from, chain, &place_of);
            let places = chain
                .iter()
                .enumerate()
                .filter(|(_, (content, _))| *content == read.saw);
            let latest = places.map(|(n, _)| n).next_back();
            let latest = latest.unwrap_or_else(|| panic!("{read:?} saw what never was"));
            assert!(
                latest >= least,
                "{read:?} is older than {:?}: {chain:#?}",
                chain[least]
            );
            let written = self
                .writes
                .iter()
                .find(|write| write.name == chain[latest].1);
            // Nothing can be seen before somebody began to write it; the first and a later absence look alike.
            if read.saw.is_some() {
                assert!(
                    written.is_some_and(|write| write.from <= read.to),
                    "{read:?}"
                );
            }
        }
    }

    fn told_before(
        &self,
        moment: Instant,
        chain: &[(Content, String)],
        place_of: &BTreeMap<&str, usize>,
    ) -> usize {
        let written = self.writes.iter();
        let written = written.filter(|write| write.told == Told::Done && write.to < moment);
        let written = written.filter_map(|write| place_of.get(&*write.name).copied());
        let read = self.reads.iter().filter(|read| read.to < moment);
        // The earliest place that a read may have been at.
        let read =
            read.filter_map(|read| chain.iter().position(|(content, _)| *content == read.saw));
        written.chain(read).max().unwrap_or(0)
    }
}
