//! How events go through streams.

use std::time::Duration;

/// What a subscriber of streams does beside delivering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// Idle time after which an unfinished event of another consumer is taken over, at least
    /// [`SHORTEST_TAKE_OVER`](Self::SHORTEST_TAKE_OVER).
    ///
    /// Events in our hands are never idle for so long, however long a handler takes. It is how long
    /// events of a crashed replica wait. Dapr cannot say that it is still at work: with a shorter time
    /// than its `processingTimeout`, events that it handles are handled here as well.
    pub take_over_after: Duration,
    /// What is removed from a stream.
    pub trimming: Trimming,
}

impl StreamConfig {
    /// Shortest idle time after which an event is taken over.
    pub const SHORTEST_TAKE_OVER: Duration = Duration::from_millis(100);
}

impl Default for StreamConfig {
    /// 60 s, the default of Dapr's `processingTimeout`; what every group has finished is removed.
    fn default() -> Self {
        Self {
            take_over_after: Duration::from_secs(60),
            trimming: Trimming::default(),
        }
    }
}

/// What is removed from a stream, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimming {
    /// Nothing, ever.
    Off,
    /// What every group of the stream has finished, groups of Dapr included, but for the newest events.
    ///
    /// A group that never comes back therefore holds its events for ever, and a stream without a group,
    /// of dead letters for example, keeps everything. A reader without a group is not noticed.
    Finished {
        /// Events that stay for groups that begin later.
        keep: u64,
    },
    /// The oldest ones of each publication, as Dapr's `maxLenApprox`: **also those that a group has not
    /// finished or not even read**, which are lost to it.
    Longest {
        /// About so many events stay, and never fewer.
        events: u64,
    },
}

impl Default for Trimming {
    /// What is finished is removed, but for the 10,000 newest events.
    fn default() -> Self {
        Self::Finished { keep: 10_000 }
    }
}
