//! The notifier against a receiver that behaves and misbehaves on a real socket.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use task_core::ports::{ErrorKind, Notification, Notifier, Outcome, PortError, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::notifier::MAX_RESPONSE_BYTES;
use super::{HttpConfig, HttpNotifier};

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";

/// What the receiver does with the next request.
enum Reply {
    /// Writes this and keeps the connection.
    Text(String),
    /// Writes this and closes the connection.
    Close(&'static str),
    /// Writes this and resets the connection.
    Reset(&'static str),
    /// Says nothing and keeps the connection.
    Silence,
    /// Accepts, and sends a body until nobody reads it any more.
    Endless,
}

/// A request as it arrived, and the number of the connection that it came by.
struct Request {
    connection: usize,
    head: String,
    body: String,
}

struct Receiver {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Bytes of each endless body that were taken.
    taken: mpsc::UnboundedReceiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers requests in this order, connection after connection.
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (seen, requests) = mpsc::unbounded_channel();
        let (took, taken) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut replies = replies.into_iter();
            for connection in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else {
                    return;
                };
                while let Some((head, body)) = read_request(&mut stream).await {
                    let _ = seen.send(Request {
                        connection,
                        head,
                        body,
                    });
                    let Some(reply) = replies.next() else { return };
                    if !answer(&mut stream, reply, &took).await {
                        break;
                    }
                }
            }
        });
        Self {
            address,
            requests,
            taken,
            task,
        }
    }

    fn notifier(&self) -> HttpNotifier {
        notifier(&format!("http://{}/hook", self.address))
    }

    async fn request(&mut self) -> Request {
        self.requests.recv().await.expect("a request")
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1)?;
        let length: usize = length.lines().next()?.parse().ok()?;
        if body.len() >= length {
            return Some((head, body.to_owned()));
        }
    }
}

/// Says whether the connection goes on.
async fn answer(stream: &mut TcpStream, reply: Reply, took: &mpsc::UnboundedSender<usize>) -> bool {
    match reply {
        Reply::Text(text) => stream.write_all(text.as_bytes()).await.is_ok(),
        Reply::Silence => true,
        Reply::Close(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            false
        }
        Reply::Reset(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            stream.set_zero_linger().expect("a socket option");
            false
        }
        Reply::Endless => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            let mut sent = 0;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {
                sent += 0x10000;
            }
            let _ = took.send(sent);
            false
        }
    }
}

fn notifier(base: &str) -> HttpNotifier {
    let config = HttpConfig::new(base).expect("a valid address");
    HttpNotifier::new(config).expect("a client")
}

fn notification() -> Notification {
    Notification {
        idempotency_key: "e-1".into(),
        body: r#"{"type":"task_completed"}"#.into(),
    }
}

fn text(status_and_headers: &str) -> Reply {
    Reply::Text(format!(
        "HTTP/1.1 {status_and_headers}\r\ncontent-length: 0\r\n\r\n"
    ))
}

async fn failure_of(reply: Reply) -> PortError {
    let receiver = Receiver::start(vec![reply]).await;
    let error = receiver.notifier().notify(&notification()).await;
    error.expect_err("not accepted")
}

#[tokio::test]
async fn a_notification_arrives_with_its_key_and_body_unchanged() {
    let mut receiver = Receiver::start(vec![Reply::Text(ACCEPTED.to_owned())]).await;
    let sent = receiver.notifier().notify(&notification()).await;
    sent.expect("accepted");
    let request = receiver.request().await;
    assert!(
        request.head.starts_with("post /hook/notify http/1.1"),
        "{}",
        request.head
    );
    for header in ["content-type: application/json", "idempotency-key: e-1"] {
        assert!(request.head.contains(header), "{}", request.head);
    }
    assert_eq!(request.body.as_bytes(), notification().body);
}

#[tokio::test]
async fn a_connection_serves_again_after_an_answer_and_after_a_refusal() {
    let replies = vec![
        Reply::Text(ACCEPTED.to_owned()),
        text("500 Internal Server Error"),
        Reply::Text(ACCEPTED.to_owned()),
    ];
    let mut receiver = Receiver::start(replies).await;
    let notifier = receiver.notifier();
    for accepted in [true, false, true] {
        let answer = notifier.notify(&notification()).await;
        assert_eq!(answer.is_ok(), accepted);
        assert_eq!(receiver.request().await.connection, 0);
    }
}

#[tokio::test]
async fn a_redirect_is_a_refusal_and_is_not_followed() {
    let mut elsewhere = Receiver::start(vec![Reply::Text(ACCEPTED.to_owned())]).await;
    let location = format!(
        "307 Temporary Redirect\r\nlocation: http://localhost:{}/",
        elsewhere.address.port()
    );
    let error = failure_of(text(&location)).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.retryable(), Retry::Never);
    assert!(
        error.to_string().contains("redirect to localhost"),
        "{error}"
    );
    assert!(elsewhere.requests.try_recv().is_err(), "it was followed");
}

#[tokio::test]
async fn never_and_not_now_are_told_apart() {
    let never = failure_of(text("422 Unprocessable Content")).await;
    assert_eq!(never.retryable(), Retry::Never);
    let not_now = failure_of(text("429 Too Many Requests\r\nretry-after: 3")).await;
    assert_eq!(not_now.retryable(), Retry::After(Duration::from_secs(3)));
    let dated = "503 Service Unavailable\r\nretry-after: Sat, 21 Nov 2026 00:00:00 GMT";
    assert_eq!(failure_of(text(dated)).await.retryable(), Retry::Maybe);
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout_with_an_unknown_outcome() {
    let receiver = Receiver::start(vec![Reply::Silence]).await;
    let mut config = HttpConfig::new(&format!("http://{}", receiver.address)).expect("valid");
    config.deadline = Duration::from_millis(300);
    let notifier = HttpNotifier::new(config).expect("a client");
    let started = Instant::now();
    let error = notifier.notify(&notification()).await;
    let error = error.expect_err("too slow");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.retryable(), Retry::Maybe);
    assert_eq!(
        error.to_string(),
        "http notify: timeout: no answer within 300 ms (outcome unknown)"
    );
}

#[tokio::test]
async fn a_huge_answer_is_accepted_and_not_read_to_its_end() {
    let mut receiver = Receiver::start(vec![Reply::Endless]).await;
    let sent = receiver.notifier().notify(&notification()).await;
    sent.expect("accepted");
    // Beyond the limit there are only the buffers of two sockets.
    let taken = receiver.taken.recv().await.expect("closed by us");
    assert!(taken >= MAX_RESPONSE_BYTES, "{taken}");
    assert!(taken < 16 * 1024 * 1024, "{taken}");
}

#[tokio::test]
async fn an_accepted_notification_stays_accepted_when_the_rest_of_the_answer_is_missing() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    for reply in [Reply::Close(begun), Reply::Text(begun.to_owned())] {
        let receiver = Receiver::start(vec![reply]).await;
        let sent = receiver.notifier().notify(&notification()).await;
        sent.expect("accepted");
    }
}

#[tokio::test]
async fn a_torn_or_foreign_answer_is_unavailable_with_an_unknown_outcome() {
    for reply in [
        Reply::Reset("HTTP/1.1 200 O"),
        Reply::Close("HTTP/1.1 200 OK\r\ncontent-"),
        Reply::Close(""),
        Reply::Close("SSH-2.0-OpenSSH_9.9\r\n"),
        Reply::Close("HTTP/1.1 2OO OK\r\n\r\n"),
    ] {
        let error = failure_of(reply).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(error.retryable(), Retry::Maybe, "{error}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_unavailable_and_got_nothing() {
    let receiver = Receiver::start(Vec::new()).await;
    let notifier = receiver.notifier();
    receiver.task.abort();
    while notifier.check().await.is_ok() {
        tokio::task::yield_now().await;
    }
    for error in [
        notifier.notify(&notification()).await,
        notifier.check().await,
    ] {
        let error = error.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    }
}

#[tokio::test]
async fn an_unknown_host_is_unavailable_and_got_nothing() {
    let error = notifier("http://receiver.invalid")
        .notify(&notification())
        .await
        .expect_err("no such host");
    // Where a resolver does not answer at all, the deadline or the connect timeout speaks first.
    if error.kind() == ErrorKind::Unavailable {
        assert_eq!(error.outcome(), Outcome::NotApplied);
    } else {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
}

#[tokio::test]
async fn a_failed_tls_handshake_is_unavailable_and_got_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut hello = [0; 64];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = notifier(&format!("https://{address}"))
        .notify(&notification())
        .await
        .expect_err("no TLS there");
    plain.await.expect("the receiver ran");
    assert_eq!(
        error.to_string(),
        "http notify: unavailable: the TLS handshake failed"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn a_check_sends_nothing() {
    let mut receiver = Receiver::start(Vec::new()).await;
    receiver.notifier().check().await.expect("reached");
    assert!(receiver.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_key_that_is_no_header_value_is_invalid_and_not_sent() {
    let mut receiver = Receiver::start(Vec::new()).await;
    let broken = Notification {
        idempotency_key: "a\r\nx-evil: 1".into(),
        ..notification()
    };
    let error = receiver.notifier().notify(&broken).await;
    let error = error.expect_err("no header value");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(receiver.requests.try_recv().is_err());
}

#[tokio::test]
async fn the_path_shows_in_no_error() {
    let receiver = Receiver::start(vec![Reply::Close("")]).await;
    let notifier = notifier(&format!("http://{}/hunter2", receiver.address));
    let error = notifier.notify(&notification()).await.expect_err("torn");
    let mut shown = format!("{error:?}");
    let mut next: Option<&dyn Error> = Some(&error);
    while let Some(error) = next {
        shown += &error.to_string();
        next = error.source();
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}
