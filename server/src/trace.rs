//! Which trace the work at hand belongs to, as the W3C writes it.
//!
//! A request that says which trace it is a part of lends it to every call that is made in its own task; without one it
//! is the first of a new trace. What a sidecar delivers by a request is handled in that request's trace as well. A call that
//! no request makes, as of the relay, is a trace of its own.
//!
//! No span is recorded here. What records them one day answers [`next_call`] from its own span in hand, and
//! opens one where [`within`] stands; whoever asks for a [`Context`] stays as it is.
//!
//! *Source:* <https://www.w3.org/TR/trace-context/>.

use std::cell::OnceCell;

use axum::http::HeaderMap;
use task_core::ports::{Entropy, SystemEntropy};

/// The header that carries a context.
const TRACEPARENT: &str = "traceparent";

/// Length of version `00`; later ones only add to it.
const BYTES: usize = 55;

/// The one flag that has a meaning: the caller records the trace.
const SAMPLED: u8 = 1;

tokio::task_local! {
    /// The caller's context, or as soon as somebody asks a new one.
    static CURRENT: OnceCell<Context>;
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace; never zero.
    pub trace_id: [u8; 16],
    /// The span of one call; never zero.
    pub span_id: [u8; 8],
    /// 1 if the trace is recorded, otherwise 0.
    pub flags: u8,
}

impl Context {
    /// Reads the caller's context; `None` if there is none, more than one, or one that has to be ignored.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (only, None) = (values.next()?, values.next()) else {
            return None;
        };
        Self::parse(only.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, later) = text.split_at_checked(BYTES)?;
        let dashes = [2, 35, 52].map(|at| known[at]);
        let [version] = hex(&known[..2])?;
        let context = Self {
            trace_id: hex(&known[3..35])?,
            span_id: hex(&known[36..52])?,
            flags: hex::<1>(&known[53..])?[0] & SAMPLED,
        };
        let ends = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.first().is_none_or(|byte| *byte == b'-'),
        };
        let is_sound = context.trace_id != [0; 16] && context.span_id != [0; 8];
        (dashes == [b'-'; 3] && ends && is_sound).then_some(context)
    }

    /// A new trace. It is recorded: nobody before has decided that it is not.
    fn new() -> Self {
        Self {
            trace_id: random(),
            span_id: random(),
            flags: SAMPLED,
        }
    }
}

/// Does work in the trace of its caller, or in one of its own.
///
/// # Cancel safety
/// As the work.
pub async fn within<F: Future>(caller: Option<Context>, work: F) -> F::Output {
    let current = caller.map_or_else(OnceCell::new, OnceCell::from);
    CURRENT.scope(current, work).await
}

/// The context of a call that is about to be made: a new span of the trace at hand, or of a new one.
#[must_use]
pub fn next_call() -> Context {
    let current = CURRENT.try_with(|current| *current.get_or_init(Context::new));
    Context {
        span_id: random(),
        ..current.unwrap_or_else(|_| Context::new())
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    // Zero would mean that there is none.
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

/// Reads `2 * N` lower-case digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(values: &[&str]) -> Option<Context> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes());
            headers.append(TRACEPARENT, value.expect("a header's value"));
        }
        Context::of(&headers)
    }

    #[test]
    fn a_header_is_read_or_ignored_as_the_standard_says() {
        let good = read(&[GOOD]).expect("the standard's own example");
        assert_eq!(good.trace_id[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!((good.span_id[7], good.flags), (0x31, 1));
        let flags = |flags: &str| read(&[&format!("{}{flags}", &GOOD[..53])]);
        assert_eq!(flags("00").map(|context| context.flags), Some(0));
        assert_eq!(flags("fe").map(|context| context.flags), Some(0));
        for later in ["01", "fe"] {
            let of_later = |end: &str| read(&[&format!("{later}{}{end}", &GOOD[2..])]);
            assert_eq!(of_later(""), Some(good), "{later}");
            assert_eq!(of_later("-what-comes"), Some(good), "{later}");
            assert_eq!(of_later("x"), None, "{later}");
        }
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-011",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333\u{e4}-01",
        ] {
            assert_eq!(read(&[bad]), None, "{bad:?} was accepted");
        }
        assert_eq!(read(&[GOOD, GOOD]), None, "which of them?");
    }

    #[tokio::test]
    async fn each_call_is_a_span_of_its_own_in_the_trace_at_hand() {
        let caller = read(&[GOOD]).expect("valid");
        let both = async || [next_call(), next_call()];
        let [first, second] = within(Some(caller), both()).await;
        assert_eq!([first.trace_id, second.trace_id], [caller.trace_id; 2]);
        assert_ne!(first.span_id, second.span_id);
        assert_ne!(first.span_id, caller.span_id);
        let unsampled = Context { flags: 0, ..caller };
        let [first, _] = within(Some(unsampled), both()).await;
        assert_eq!(first.flags, 0, "the caller has decided");

        let [first, second] = within(None, both()).await;
        assert_eq!(first.trace_id, second.trace_id, "one request, one trace");
        let [third, fourth] = both().await;
        assert_ne!(third.trace_id, first.trace_id);
        assert_ne!(third.trace_id, fourth.trace_id, "nobody's calls");
    }
}
