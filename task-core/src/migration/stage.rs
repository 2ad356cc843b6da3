//! The stages of a move, and what each of them reads and writes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the two backends of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The backend that is left.
    Old,
    /// The backend that is moved to.
    New,
}

impl Side {
    /// The other backend.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// The word of reports: `old` or `new`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far records have moved, in the order of the way.
///
/// | stage | reads | writes |
/// | --- | --- | --- |
/// | `off` | old | old |
/// | `dualwrite` | old | old with a dirty marker; the new side follows |
/// | `shadow` | old, and the new side is compared | as `dualwrite` |
/// | `live` | new, but old where a marker says that new is behind | as `dualwrite` |
/// | `handoff` | as `live`, and finishes writes that it meets | wait |
/// | `rampdown` | new | new, then old, and the answer after both |
/// | `complete` | new | new |
///
/// The right to write moves once, between `live` and `rampdown`, through a stage in which nobody writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Stage {
    /// The old side alone.
    #[default]
    Off,
    /// Writes are mirrored.
    DualWrite,
    /// Reads are compared.
    Shadow,
    /// Reads are answered by the new side.
    Live,
    /// Nobody writes.
    Handoff,
    /// The new side accepts writes, and the old one follows before the answer.
    RampDown,
    /// The new side alone; there is no way back.
    Complete,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 7] = [
        Self::Off,
        Self::DualWrite,
        Self::Shadow,
        Self::Live,
        Self::Handoff,
        Self::RampDown,
        Self::Complete,
    ];

    /// The stage of this place in the order, the last one for any place behind it.
    #[must_use]
    pub fn at(place: usize) -> Self {
        Self::ALL.get(place).copied().unwrap_or(Self::Complete)
    }

    /// The place in the order, from 0.
    #[must_use]
    pub fn place(self) -> usize {
        self as usize
    }

    /// The word of commands and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DualWrite => "dualwrite",
            Self::Shadow => "shadow",
            Self::Live => "live",
            Self::Handoff => "handoff",
            Self::RampDown => "rampdown",
            Self::Complete => "complete",
        }
    }

    /// The stage of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }

    /// The side that accepts writes; `None` while nobody does.
    #[must_use]
    pub fn authority(self) -> Option<Side> {
        match self {
            Self::Off | Self::DualWrite | Self::Shadow | Self::Live => Some(Side::Old),
            Self::Handoff => None,
            Self::RampDown | Self::Complete => Some(Side::New),
        }
    }

    /// Whether the new side follows the old one.
    #[must_use]
    pub fn mirrors_forward(self) -> bool {
        matches!(
            self,
            Self::DualWrite | Self::Shadow | Self::Live | Self::Handoff
        )
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_in_the_order_of_the_way_and_read_their_own_words() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!((stage.place(), Stage::at(place)), (place, stage));
            assert_eq!(Stage::parse(stage.as_str()), Some(stage));
        }
        assert_eq!(Stage::parse("Live"), None);
    }

    #[test]
    fn the_right_to_write_moves_only_where_nobody_writes() {
        for pair in Stage::ALL.windows(2) {
            let sides = (pair[0].authority(), pair[1].authority());
            assert!(
                sides.0 == sides.1 || sides.0.is_none() || sides.1.is_none(),
                "{pair:?}"
            );
        }
    }
}
