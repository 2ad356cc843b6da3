//! The W3C trace context that a call carries to the sidecar.

use std::fmt;

/// The name of the header, over HTTP and over gRPC.
pub const TRACEPARENT: &str = "traceparent";

/// A `traceparent`, checked once.
///
/// ```
/// use adapters_dapr::TraceParent;
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
/// assert!(TraceParent::parse("00-00000000000000000000000000000000-b7ad6b7169203331-01").is_none());
/// ```
///
/// *Source:* <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

/// Asks for the trace context of the task that makes a call; `None` if it is not traced.
///
/// It is called in that task, once a call, and must not block.
pub type CurrentTrace = fn() -> Option<TraceParent>;

impl TraceParent {
    /// Length of the only version there is, in bytes.
    const BYTES: usize = 55;

    /// Reads version `00`; `None` for anything else, which the standard wants to be ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
        let mut parts = text.split('-');
        let mut part = |bytes: usize| parts.next().filter(|p| p.len() == bytes && lower_hex(p));
        let (version, trace, span) = (part(2)?, part(32)?, part(16)?);
        part(2)?;
        let sound = text.len() == Self::BYTES && version == "00";
        (sound && !is_zero(trace) && !is_zero(span)).then(|| Self(text.into()))
    }

    /// The header's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_is_what_the_standard_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed = TraceParent::parse(good).expect("valid");
        assert_eq!(parsed.as_str(), good);
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1\n",
        ] {
            assert!(TraceParent::parse(bad).is_none(), "{bad:?} was accepted");
        }
    }
}
