//! Who answers in a conversation.

use std::fmt::Debug;

use async_trait::async_trait;

use super::chat::Message;
use crate::ports::PortError;

/// What somebody says, and what was said before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is said.
    pub content: String,
    /// The user's messages so far, this one included, also those that are kept no more.
    pub messages: u64,
    /// What was said before, oldest first, as far as it is kept.
    pub history: Vec<Message>,
}

/// Answers what users say.
///
/// It is asked within the turn of the user's actor: while it thinks, that user waits and nobody else. An answer beyond
/// [`ChatActor::MAX_MESSAGE_CHARS`](super::ChatActor::MAX_MESSAGE_CHARS) is cut off.
///
/// # Errors
/// As the world behind it. Then nothing of the exchange is kept.
#[async_trait]
pub trait Responder: Debug + Send + Sync + 'static {
    /// Answers a question. It changes nothing, so a dropped future does no harm.
    async fn respond(&self, question: &Question) -> Result<String, PortError>;
}

/// The responder that needs nothing: three sentences.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use task_core::agent::{BuiltInResponder, Question, Responder};
///
/// let question = Question { content: "hello".to_owned(), messages: 1, history: Vec::new() };
/// let answer = BuiltInResponder.respond(&question).await.unwrap();
/// assert_eq!(answer, "Understood. I'm tracking our conversation (message #1).");
/// # });
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInResponder;

impl BuiltInResponder {
    /// The answer to a question.
    #[must_use]
    pub fn answer(question: &Question) -> String {
        let said = question.content.to_lowercase();
        let messages = question.messages;
        if said.contains("task") {
            format!("I can help with tasks. You have {messages} messages in our conversation.")
        } else if said.contains("help") {
            "I'm your task management assistant. Ask me about creating, assigning, or tracking tasks."
                .to_owned()
        } else {
            format!("Understood. I'm tracking our conversation (message #{messages}).")
        }
    }
}

#[async_trait]
impl Responder for BuiltInResponder {
    async fn respond(&self, question: &Question) -> Result<String, PortError> {
        Ok(Self::answer(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_are_pinned() {
        let answer = |content: &str| {
            BuiltInResponder::answer(&Question {
                content: content.to_owned(),
                messages: 12,
                history: Vec::new(),
            })
        };
        let tasks = "I can help with tasks. You have 12 messages in our conversation.";
        assert_eq!(answer("my TASKS, help"), tasks);
        let help = "I'm your task management assistant. Ask me about creating, assigning, or tracking tasks.";
        assert_eq!(answer("Help!"), help);
        let other = "Understood. I'm tracking our conversation (message #12).";
        assert_eq!(answer(""), other);
    }
}
