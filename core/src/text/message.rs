//! What people and models say to each other.

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What holds for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// What one of them says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What. It is plain text to the model, whatever it spells.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }
}

/// What shows, after [`instruct`], that the model goes on as the user: a stop text.
pub const USER_AGAIN: &str = "\nUser:";

/// A conversation as Nemotron-Flash-3B-Instruct wants it (spec section 5): `User: {message}\nAssistant:`, without white
/// space behind. Answers follow as the model wrote them, and what the system says stands in front.
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
