//! The token ids of a conversation.

use std::collections::{BTreeMap, BTreeSet};

use super::Tokenizer;
use super::message::{Message, Role};
use super::template::{ChatTemplate, TemplateOptions};
use super::wrong::template as bad;
use crate::Result;

/// Most quoted texts of a template that a message is searched for.
const MAX_QUOTED: usize = 64;

impl ChatTemplate {
    /// The ids of the conversation as the template writes it ([`ChatTemplate::render`]). Special tokens that the
    /// template writes are recognised; those that a message spells are plain text. Nothing is put around:
    /// a `<s>` is the template's own business, as in transformers.
    ///
    /// For messages that spell no special token, these are the ids that transformers gives: text of the template and
    /// text of a message that touch are split and merged as one text.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], [`Error::Prompt`](crate::Error::Prompt) as [`Tokenizer::encode`], and
    /// [`Error::Template`](crate::Error::Template) if the template changes a message so that what it says cannot be
    /// told from control tokens.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &TemplateOptions,
    ) -> Result<Vec<u32>> {
        // Where does a character of the rendered text come from? A template may strip a message, cut it at `</think>`
        // or repeat it, so positions do not tell. Instead the messages are rendered once more with every character
        // that a special token could contain replaced by a mark of its own, from Unicode's private-use ranges. A
        // special token that is found in that text consists of characters of the template alone, whatever the
        // template did to the message, and whatever the message holds.
        //
        // With the marks taken back, the text must be what was rendered from the messages as they are: otherwise the
        // template looked into a message, saw a mark, and wrote something else. It looks for what it has in quotes
        // (`</think>`), so these are left as they are in a second try, except where they share characters with a
        // special token: then they could be part of one. If the texts still differ (`content|upper`), the
        // conversation is refused, because nothing tells which characters to trust.
        let text = self.render(messages, add_generation_prompt, options)?;
        let special: Vec<&str> = tokenizer.special_texts().collect();
        let marks = Marks::new(&special, messages)?;
        for kept in [vec![], self.harmless(&special, messages)] {
            let marked: Vec<Message> =
                messages.iter().map(|m| Message::new(m.role, marks.put(&m.content, &kept))).collect();
            // A template that stumbles over marks is one that looks into messages.
            let Ok(marked) = self.render_any(&marked, add_generation_prompt, options) else { continue };
            if marks.take(&marked) == text {
                return tokenizer.encode_marked(&marked, |text| marks.take(text));
            }
        }
        Err(bad("it changes what a message says, which then cannot be told from control tokens"))
    }

    /// The token that the template writes behind an answer, white space aside: there the model's turn ends, whatever the
    /// files name as the end of a text. A base model that was trained on ChatML still names `<|endoftext|>`, and its turns
    /// end with `<|im_end|>`. Nothing if there is no such token, or the template refuses the conversation.
    pub fn turn_end(&self, tokenizer: &Tokenizer, options: &TemplateOptions) -> Option<u32> {
        // A character that no template writes by itself.
        const ANSWER: &str = "\u{F8FF}";
        let said = [(Role::User, "Hello"), (Role::Assistant, ANSWER), (Role::User, "Hello again")];
        let messages = said.map(|(role, text)| Message::new(role, text));
        // A conversation that goes on shows more, but not every template takes one that ends with a question.
        let texts = [3, 2].map(|count| self.render(&messages[..count], false, options));
        let text = texts.into_iter().find_map(Result::ok)?;
        let (_, behind) = text.rsplit_once(ANSWER)?;
        let behind = behind.trim_start();
        let tokens = tokenizer.added_tokens().filter(|(_, token)| !token.is_empty() && behind.starts_with(token));
        tokens.max_by_key(|(_, token)| token.len()).map(|(id, _)| id)
    }

    /// What the template has in quotes and a message contains, without what could be a part of a special token.
    fn harmless<'a>(&'a self, special: &[&str], messages: &[Message]) -> Vec<&'a str> {
        let said = |text: &&str| messages.iter().any(|message| message.content.contains(*text));
        let quoted: BTreeSet<&str> = self.quoted.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let apart = |text: &&str| special.iter().all(|token| !touch(text, token));
        let mut found: Vec<&str> = quoted.into_iter().filter(apart).filter(said).take(MAX_QUOTED).collect();
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found
    }
}

/// Whether a token could contain characters of this text: one is part of the other, or the end of one is the beginning
/// of the other.
fn touch(text: &str, token: &str) -> bool {
    let ends = |a: &str, b: &str| a.char_indices().any(|(i, _)| b.starts_with(&a[i..]));
    text.contains(token) || token.contains(text) || ends(text, token) || ends(token, text)
}

/// A private-use character for each character of the messages that a special token could contain.
struct Marks {
    put: BTreeMap<char, char>,
    take: BTreeMap<char, char>,
}

impl Marks {
    fn new(special: &[&str], messages: &[Message]) -> Result<Marks> {
        let said: BTreeSet<char> = messages.iter().flat_map(|message| message.content.chars()).collect();
        let wanted: BTreeSet<char> = special.iter().flat_map(|text| text.chars()).collect();
        // A template may change the case of a message.
        let could =
            |c: &&char| c.to_lowercase().chain(c.to_uppercase()).any(|c| wanted.contains(&c)) || wanted.contains(c);
        let mut free = ('\u{E000}'..='\u{F8FF}').chain('\u{F0000}'..='\u{10FFFD}').filter(|c| !said.contains(c));
        let put: BTreeMap<char, char> = said.iter().filter(could).filter_map(|&c| Some((c, free.next()?))).collect();
        if put.len() < said.iter().filter(could).count() {
            return Err(bad("the messages use every private-use character of Unicode"));
        }
        Ok(Marks { take: put.iter().map(|(&c, &mark)| (mark, c)).collect(), put })
    }

    /// With marks, except in these texts.
    fn put(&self, text: &str, kept: &[&str]) -> String {
        let (mut marked, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(c) = rest.chars().next() {
            let length = match kept.iter().find(|kept| rest.starts_with(**kept)) {
                Some(kept) => {
                    marked.push_str(kept);
                    kept.len()
                }
                None => {
                    marked.push(self.put.get(&c).copied().unwrap_or(c));
                    c.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        marked
    }

    fn take(&self, text: &str) -> String {
        text.chars().map(|c| self.take.get(&c).copied().unwrap_or(c)).collect()
    }
}
