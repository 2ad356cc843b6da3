//! Conversations: what is counted, kept and announced.

use super::*;
use crate::agent::{Actor, ActorType, BuiltInResponder, Command, Reply, Responder};
use crate::memory::ManualClock;
use crate::ports::{Clock, ErrorKind, Event, PortError};

fn actor() -> ChatActor {
    ChatActor::load(ActorId::parse("user_id", "ann").unwrap(), None).unwrap()
}

fn noon() -> Timestamp {
    ManualClock::default().now()
}

/// Says something; the answer and its event.
fn say(actor: &mut ChatActor, content: &str) -> (String, Event) {
    let question = actor.question(content).unwrap();
    let answer = BuiltInResponder::answer(&question);
    let mut turn = actor.exchange(&question, &answer, noon());
    assert!(turn.changed);
    match (turn.reply, turn.effects.pop(), turn.effects.len()) {
        (Ok(message), Some(Effect::Publish(event)), 0) => (message.content, event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_are_counted_beyond_those_that_are_kept() {
    let mut actor = actor();
    for number in 1..=25 {
        let (answer, _) = say(&mut actor, &format!("message {number}"));
        assert_eq!(
            answer,
            format!("Understood. I'm tracking our conversation (message #{number}).")
        );
    }
    let kept = actor.history().messages;
    assert_eq!(kept.len(), ChatActor::MAX_ENTRIES);
    assert_eq!(kept[0].content, "message 16");
    assert_eq!((kept[0].role, kept[1].role), (Role::User, Role::Assistant));
}

#[test]
fn the_event_of_an_exchange_is_pinned_byte_for_byte() {
    let (_, event) = say(&mut actor(), "say \"hi\"");
    assert_eq!(event.topic.as_str(), "conversation-events");
    assert_eq!(&*event.key, "ann");
    let expected = concat!(
        r#"{"specversion":"1.0","id":"ID","source":"task-agent-system","type":"conversation.updated","#,
        r#""subject":"ann","time":"2026-01-01T00:00:00.000000Z","datacontenttype":"application/json","#,
        r#""topic":"conversation-events","pubsubname":"pubsub","data":{"event_type":"conversation.updated","#,
        r#""user_id":"ann","user_message":"say \"hi\"","#,
        r#""assistant_message":"Understood. I'm tracking our conversation (message #1).","#,
        r#""timestamp":"2026-01-01T00:00:00.000000Z"}}"#
    );
    let id = "f8a91267-a3d7-5f29-828e-95239329f1b2";
    assert_eq!(event.payload, expected.replace("ID", id));
}

#[test]
fn no_two_exchanges_have_events_of_one_id_not_even_after_clearing() {
    let mut actor = actor();
    let id = |event: &Event| -> String {
        let json: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        json["id"].as_str().unwrap().to_owned()
    };
    let (_, first) = say(&mut actor, "hello");
    assert!(actor.clear().changed);
    assert!(!actor.clear().changed);
    assert!(actor.history().messages.is_empty());
    let record = actor.store().unwrap();
    let mut actor = ChatActor::load(actor.id.clone(), Some(&record)).unwrap();
    let (answer, second) = say(&mut actor, "hello");
    assert!(answer.ends_with("(message #1)."), "{answer}");
    assert_ne!(id(&first), id(&second));
}

#[test]
fn reading_and_clearing_a_conversation_that_never_was_leave_nothing_behind() {
    let mut actor = actor();
    assert!(actor.history().messages.is_empty());
    assert!(!actor.clear().changed);
    assert_eq!(actor.store(), None);
}

#[test]
fn the_record_is_pinned_and_reads_back() {
    let mut actor = actor();
    say(&mut actor, "help");
    let record = actor.store().unwrap();
    let text = std::str::from_utf8(&record).unwrap();
    let begin = concat!(
        r#"{"v":1,"messages":1,"revision":1,"entries":[{"role":"user","content":"help","#,
        r#""timestamp":"2026-01-01T00:00:00.000000Z"},{"role":"assistant","content":"I'm your "#
    );
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(
        ChatActor::load(actor.id.clone(), Some(&record)).unwrap(),
        actor
    );
}

#[test]
fn a_message_without_text_or_with_too_much_is_refused() {
    let actor = actor();
    assert!(
        actor
            .question(&"é".repeat(ChatActor::MAX_MESSAGE_CHARS))
            .is_ok()
    );
    for bad in [String::new(), "é".repeat(ChatActor::MAX_MESSAGE_CHARS + 1)] {
        let refused = actor.question(&bad).unwrap_err().to_string();
        let expected = format!(
            "content: a message has 1 to 8000 characters, this one has {}",
            bad.chars().count()
        );
        assert_eq!(refused, expected);
    }
}

#[test]
fn the_longest_conversation_fits_into_a_store_and_its_events_onto_a_bus() {
    let mut actor = actor();
    // Six bytes each in JSON; nothing takes more.
    let longest = "\u{1}".repeat(ChatActor::MAX_MESSAGE_CHARS);
    for _ in 0..10 {
        let question = actor.question(&longest).unwrap();
        let answer = format!("{longest} and more");
        let turn = actor.exchange(&question, &answer, noon());
        let [Effect::Publish(event)] = &turn.effects[..] else {
            panic!("{:?}", turn.effects);
        };
        event.check_limits("test", "publish").unwrap();
    }
    assert_eq!(actor.history().messages.len(), ChatActor::MAX_ENTRIES);
    let record = actor.store().unwrap();
    assert!(
        record.len() <= crate::ports::MAX_VALUE_BYTES,
        "{}",
        record.len()
    );
}

/// A responder that is away.
#[derive(Debug)]
struct Away;

#[async_trait::async_trait]
impl Responder for Away {
    async fn respond(&self, _: &Question) -> Result<String, PortError> {
        Err(PortError::new(ErrorKind::Unavailable, "llm", "respond"))
    }
}

#[tokio::test]
async fn a_responder_that_fails_leaves_no_half_of_an_exchange() {
    let clock = ManualClock::default();
    let id = ActorId::parse("user_id", "ann").unwrap();
    let mut actor = Actor::load(ActorType::Chat, id, None).unwrap();
    let say = |content: &str| {
        let content = content.to_owned();
        Command::Chat(ChatCommand::ProcessMessage { content })
    };
    let error = actor
        .perform(say("hello"), &Away, &clock)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(actor.store(), None);

    let refused = actor.perform(say(""), &Away, &clock).await.unwrap();
    assert!(refused.reply.is_err() && !refused.changed);
    let answered = actor.perform(say("hello"), &BuiltInResponder, &clock).await;
    assert!(matches!(answered.unwrap().reply, Ok(Reply::Message(_))));
    let wrong = Command::parse(ActorType::Task, "GetTask", b"{}").unwrap();
    let wrong = actor
        .perform(wrong, &BuiltInResponder, &clock)
        .await
        .unwrap();
    assert_eq!(
        wrong.reply.unwrap_err().to_string(),
        "command: it is one of a TaskActor"
    );
}
