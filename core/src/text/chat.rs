//! The token ids of a conversation.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Message, Role};
use super::template::{ChatTemplate, TemplateOptions};
use super::tokenizer::Tokenizer;
use super::wrong::template as bad;
use crate::Result;

/// The most quoted texts of a template that are looked for in messages.
const MAX_QUOTED: usize = 64;

impl ChatTemplate {
    /// The ids of the conversation as the template writes it ([`ChatTemplate::render`]). Special tokens that the
    /// template writes are recognised; those that a message spells are plain text. No tokens are added around it: a
    /// `<s>` must come from the template, as in transformers.
    ///
    /// For messages that spell no special token, these are the ids that transformers gives: where text of the template
    /// and text of a message touch, they are split and merged as one text.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], [`Error::Prompt`](crate::Error::Prompt) as [`Tokenizer::encode`], and
    /// [`Error::Template`](crate::Error::Template) if the template changes a message in such a way that its text cannot
    /// be told from control tokens.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &TemplateOptions,
    ) -> Result<Vec<u32>> {
        // Which characters of the rendered text come from the template? Positions do not tell, because a template may
        // strip a message, cut it at `</think>` or repeat it. Instead the messages are rendered a second time, with
        // every character that a special token could contain replaced by a mark: a character from Unicode's private-use
        // ranges. A special token that is found in that second text consists only of characters of the template,
        // whatever the template did to the message, and whatever the message says.
        //
        // With the marks replaced back, the second text must equal the first one. Otherwise the template looked into a
        // message, saw a mark, and wrote something else. A template looks for texts that it has in quotes (`</think>`),
        // so a second try keeps these without marks, except where they share characters with a special token and could
        // be part of one. If the texts still differ (`content|upper`), the conversation is an error, because it is
        // unknown which characters to trust.
        let text = self.render(messages, add_generation_prompt, options)?;
        let special: Vec<&str> = tokenizer.special_texts().collect();
        let marks = Marks::new(&special, messages)?;
        for kept in [vec![], self.harmless(&special, messages)] {
            let marked: Vec<Message> =
                messages.iter().map(|m| Message::new(m.role, marks.put(&m.content, &kept))).collect();
            // A template that fails on marks is one that looks into messages.
            let Ok(marked) = self.render_any(&marked, add_generation_prompt, options) else { continue };
            if marks.take(&marked) == text {
                return tokenizer.encode_marked(&marked, |text| marks.take(text));
            }
        }
        Err(bad("it changes what a message says, which then cannot be told from control tokens"))
    }

    /// The token that the template writes right after an answer, white space aside. It ends the model's turn, whatever
    /// the files name as the end of a text: a base model that was trained on ChatML still names `<|endoftext|>`, but
    /// its turns end with `<|im_end|>`. `None` if there is no such token, or if the template refuses the conversation.
    pub fn turn_end(&self, tokenizer: &Tokenizer, options: &TemplateOptions) -> Option<u32> {
        // A character that no template writes by itself.
        const ANSWER: &str = "\u{F8FF}";
        let said = [(Role::User, "Hello"), (Role::Assistant, ANSWER), (Role::User, "Hello again")];
        let messages = said.map(|(role, text)| Message::new(role, text));
        // A conversation that goes on after the answer shows more, but some templates refuse one that ends with a
        // question.
        let texts = [3, 2].map(|count| self.render(&messages[..count], false, options));
        let text = texts.into_iter().find_map(Result::ok)?;
        let (_, behind) = text.rsplit_once(ANSWER)?;
        let behind = behind.trim_start();
        let tokens = tokenizer.added_tokens().filter(|(_, token)| !token.is_empty() && behind.starts_with(token));
        tokens.max_by_key(|(_, token)| token.len()).map(|(id, _)| id)
    }

    /// The quoted texts of the template that occur in a message and share no characters with a special token.
    fn harmless<'a>(&'a self, special: &[&str], messages: &[Message]) -> Vec<&'a str> {
        let said = |text: &&str| messages.iter().any(|message| message.content.contains(*text));
        let quoted: BTreeSet<&str> = self.quoted.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let apart = |text: &&str| special.iter().all(|token| !touch(text, token));
        let mut found: Vec<&str> = quoted.into_iter().filter(apart).filter(said).take(MAX_QUOTED).collect();
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found
    }
}

/// Whether a token could contain characters of this text: if one is part of the other, or if the end of one is the
/// beginning of the other.
fn touch(text: &str, token: &str) -> bool {
    let ends = |a: &str, b: &str| a.char_indices().any(|(i, _)| b.starts_with(&a[i..]));
    text.contains(token) || token.contains(text) || ends(text, token) || ends(token, text)
}

/// A mark (a private-use character) for each character of the messages that a special token could contain.
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

    /// The text with characters replaced by marks, except in the texts of `kept`.
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
