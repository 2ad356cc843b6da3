//! The W3C trace context that a call carries to the sidecar.

use std::fmt;

use futures_util::future::BoxFuture;
use task_core::ports::Answer;

/// The name of the header, over HTTP and over gRPC.
pub const TRACEPARENT: &str = "traceparent";

/// A `traceparent` of version `00`: the trace that a call belongs to, and the call's own span.
///
/// ```
/// use adapters_dapr::TraceParent;
/// let parent = TraceParent::new([0x0a; 16], [0xb7; 8], 1).unwrap();
/// let text = "00-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-b7b7b7b7b7b7b7b7-01";
/// assert_eq!(parent.to_string(), text);
/// assert_eq!(TraceParent::new([0; 16], [0xb7; 8], 1), None);
/// ```
///
/// *Source:* <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// Asks for the trace context of the task that makes a call; `None` if it is not traced.
///
/// It is called in that task, once a call, and must not block.
pub type CurrentTrace = fn() -> Option<TraceParent>;

/// Handles a delivery in the trace of who delivered it.
pub type WithinTrace = for<'a> fn(TraceParent, BoxFuture<'a, Answer>) -> BoxFuture<'a, Answer>;

impl TraceParent {
    /// The trace; never zero.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span; never zero.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// 1 if the trace is recorded.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Joins the parts; `None` if an id is zero, which the standard forbids.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        let is_sound = trace_id != [0; 16] && span_id != [0; 8];
        is_sound.then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let span_id = u64::from_be_bytes(self.span_id);
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}
