//! The ways of the three ports that move, each a row of stages.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Port, Stage};

/// The stages of one port, in the order of the way.
pub trait Way: Copy + Eq + 'static {
    /// Every stage; the first one is where everything begins.
    const ALL: &'static [Self];

    /// The word of commands and reports.
    fn as_str(self) -> &'static str;

    /// The place in the order, from 0.
    fn place(self) -> usize {
        let place = Self::ALL.iter().position(|stage| *stage == self);
        place.unwrap_or_default()
    }

    /// The stage of this place in the order, the last one for any place behind it.
    fn at(place: usize) -> Self {
        Self::ALL[place.min(Self::ALL.len() - 1)]
    }

    /// The stage of this word.
    fn parse(word: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|stage| stage.as_str() == word)
    }
}

impl Way for Stage {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}

/// How far events have moved, in the order of the way.
///
/// | stage | published to |
/// | --- | --- |
/// | `off` | old |
/// | `shadow` | old, and afterwards `<topic>.shadow` of new |
/// | `live` | new; what it does not accept in time goes to old |
/// | `complete` | new |
///
/// Subscribers hear both in every stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BusStage {
    /// The old bus alone.
    #[default]
    Off,
    /// The new bus gets copies that nobody handles.
    Shadow,
    /// The new bus, with the old one behind it.
    Live,
    /// The new bus alone; there is no way back.
    Complete,
}

impl Way for BusStage {
    const ALL: &'static [Self] = &[Self::Off, Self::Shadow, Self::Live, Self::Complete];

    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Live => "live",
            Self::Complete => "complete",
        }
    }
}

/// By which side a notification is sent that has not been tried yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NotifierStage {
    /// The old one.
    #[default]
    Old,
    /// The new one.
    New,
}

impl Way for NotifierStage {
    const ALL: &'static [Self] = &[Self::Old, Self::New];

    fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// A stage of any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortStage {
    /// Of the state store.
    State(Stage),
    /// Of the event bus.
    Bus(BusStage),
    /// Of the notifier.
    Notifier(NotifierStage),
}

impl PortStage {
    /// The stage of a port by its word.
    #[must_use]
    pub fn parse(port: Port, word: &str) -> Option<Self> {
        match port {
            Port::State => Stage::parse(word).map(Self::State),
            Port::Bus => BusStage::parse(word).map(Self::Bus),
            Port::Notifier => NotifierStage::parse(word).map(Self::Notifier),
        }
    }

    /// The stages of a port in which buckets may stay, in order.
    #[must_use]
    pub fn all(port: Port) -> Vec<Self> {
        match port {
            Port::State => {
                let stay = Stage::ALL
                    .into_iter()
                    .filter(|stage| *stage != Stage::Handoff);
                stay.map(Self::State).collect()
            }
            Port::Bus => BusStage::ALL.iter().copied().map(Self::Bus).collect(),
            Port::Notifier => {
                let all = NotifierStage::ALL.iter().copied();
                all.map(Self::Notifier).collect()
            }
        }
    }

    /// Whether there is no way back from it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::State(Stage::Complete) | Self::Bus(BusStage::Complete)
        )
    }

    /// The place in the order of its way, from 0.
    #[must_use]
    pub fn place(self) -> usize {
        match self {
            Self::State(stage) => stage.place(),
            Self::Bus(stage) => stage.place(),
            Self::Notifier(stage) => stage.place(),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(self) -> Port {
        match self {
            Self::State(_) => Port::State,
            Self::Bus(_) => Port::Bus,
            Self::Notifier(_) => Port::Notifier,
        }
    }

    /// The word of commands and reports, without the port.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State(stage) => stage.as_str(),
            Self::Bus(stage) => stage.as_str(),
            Self::Notifier(stage) => stage.as_str(),
        }
    }
}

impl From<Stage> for PortStage {
    fn from(stage: Stage) -> Self {
        Self::State(stage)
    }
}

impl From<BusStage> for PortStage {
    fn from(stage: BusStage) -> Self {
        Self::Bus(stage)
    }
}

impl From<NotifierStage> for PortStage {
    fn from(stage: NotifierStage) -> Self {
        Self::Notifier(stage)
    }
}

impl fmt::Display for BusStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NotifierStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PortStage {
    /// Port and stage: `bus live`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.port(), self.as_str())
    }
}

impl Serialize for PortStage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_its_own_words<S: Way + fmt::Debug>() {
        for (place, stage) in S::ALL.iter().copied().enumerate() {
            assert_eq!((stage.place(), S::at(place)), (place, stage));
            assert_eq!(S::parse(stage.as_str()), Some(stage));
        }
        assert_eq!(S::at(usize::MAX), S::ALL[S::ALL.len() - 1]);
        assert_eq!(S::parse("elsewhere"), None);
    }

    #[test]
    fn the_stages_of_every_port_are_in_order_and_read_their_own_words() {
        reads_its_own_words::<Stage>();
        reads_its_own_words::<BusStage>();
        reads_its_own_words::<NotifierStage>();
    }

    #[test]
    fn a_word_is_read_by_its_port() {
        let of = |port, word| PortStage::parse(port, word).map(|stage| stage.to_string());
        assert_eq!(of(Port::Bus, "live").as_deref(), Some("bus live"));
        assert_eq!(of(Port::State, "live").as_deref(), Some("state live"));
        assert_eq!(of(Port::Notifier, "live"), None);
        assert_eq!(of(Port::Bus, "dualwrite"), None);
    }
}
