//! The messages of a conversation.

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it.
    pub role: Role,
    /// The text. To the model it is plain text, whatever it spells.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }
}

/// A stop text for [`instruct`]: the model wrote it if it goes on in the role of the user.
pub const USER_AGAIN: &str = "\nUser:";

/// A conversation in the format of Nemotron-Flash-3B-Instruct (spec section 5): `User: {message}\nAssistant:`, without
/// white space at the end. Answers are inserted as the model wrote them, and a system message comes first.
pub fn instruct(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        if !text.is_empty() && message.role != Role::Assistant {
            text.push('\n');
        }
        match message.role {
            Role::User => text.extend(["User: ", &message.content, "\nAssistant:"]),
            Role::System | Role::Assistant => text.push_str(&message.content),
        }
    }
    text
}
