//! `nemoflash perplexity`: measures how well a model predicts a text.
//!
//! The text is cut into windows of `--context` tokens that do not overlap and share no state. A window begins like a prompt,
//! with the meta tokens and the tokenizer's prefix (`<s>`, if it has one). Every token of the text that has another token in
//! front of it in its window is scored. Perplexity is `exp(Σ -ln p / scored tokens)`.

use crate::args::{Common, Perplexity};
use crate::report::Exit;
use crate::{lines, open, terminal};
use anyhow::Result;
use nemoflash::{Engine, Error, Sampling, Tokenizer};
use std::time::Instant;

/// Longest text in bytes. The text is held in memory.
const MAX_TEXT: u64 = 64 << 20;
/// Bytes that are tokenised at a time; the tokenizer takes up to 2 MiB.
const PART: usize = 1 << 20;
/// Default length of a window in tokens.
const WINDOW: u32 = 2048;
/// Tokens that are scored at a time. The progress bar moves after each such piece.
const PIECE: usize = 64;

/// Runs the command.
///
/// # Errors
/// If the text, an option or the model cannot be used.
pub async fn run(common: &Common, args: &Perplexity) -> Result<Exit> {
    let text = lines::file(&args.text, &format!("--text {}", args.text.display()), MAX_TEXT)?;
    let (mut opened, tokenizer) = open::with_tokenizer(common).await?;
    let window = common.context.unwrap_or(WINDOW).min(opened.engine.context());
    let most = args.max_tokens.map_or(usize::MAX, |most| most as usize);
    let ids = tokenize(&tokenizer, &text, PART, most)?;
    let prefix = tokenizer.prefix();
    let start = Instant::now();
    let Score { nats, tokens, windows } = score(&mut opened.engine, &ids, prefix, window as usize).await?;
    let seconds = start.elapsed().as_secs_f64();
    let mean = nats / tokens as f64;
    let (perplexity, speed) = (mean.exp(), tokens as f64 / seconds);
    if common.json {
        let all = serde_json::json!({
            "perplexity": perplexity,
            "nll_per_token": mean,
            "tokens": tokens,
            "windows": windows,
            "context": window,
            "seconds": seconds,
            "tokens_per_second": speed,
            "text": args.text,
            "model": opened.name,
            "adapter": opened.adapter,
        });
        terminal::print(&format!("{all:#}\n"))?;
    } else {
        terminal::print(&format!("perplexity {perplexity:.4}\n"))?;
        let (adapter, each) = (&opened.adapter, if windows == 1 { "window" } else { "windows" });
        terminal::note(&format!(
            "[{tokens} tokens in {windows} {each} of {window}, {mean:.4} nats each; {speed:.1}/s; {adapter}]"
        ));
    }
    Ok(Exit::Done)
}

/// Up to `most` ids of a text that is tokenised in parts of up to `part` bytes.
fn tokenize(tokenizer: &Tokenizer, mut text: &str, part: usize, most: usize) -> Result<Vec<u32>, Error> {
    let mut ids = vec![];
    while !text.is_empty() && ids.len() < most {
        let (head, tail) = text.split_at(cut(text, part));
        ids.extend(tokenizer.encode(head, false)?);
        text = tail;
    }
    ids.truncate(most);
    Ok(ids)
}

/// Where a part of up to `part` bytes ends: in front of its last space between two letters. Every split pattern of the family
/// begins a new piece there, so the cut changes no token. If there is no such space, the part ends between two characters.
fn cut(text: &str, part: usize) -> usize {
    if text.len() <= part {
        return text.len();
    }
    let end = text.floor_char_boundary(part);
    let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let between = |at: &usize| letter(text[..*at].chars().next_back()) && letter(text[at + 1..].chars().next());
    text[..end].rmatch_indices(' ').map(|(at, _)| at).find(between).unwrap_or(end)
}

/// The scores of all windows together.
struct Score {
    /// Sum of `-ln p`.
    nats: f64,
    /// Tokens that were scored.
    tokens: usize,
    windows: usize,
}

async fn score(engine: &mut Engine, ids: &[u32], prefix: &[u32], window: usize) -> Result<Score> {
    let next = "Use a longer one";
    let each = match window.checked_sub(prefix.len()) {
        Some(each) if each > 0 && window > 1 => each,
        _ => {
            let why = format!("{window} tokens leave none to score. {next}");
            return Err(Error::Parameter { name: "--context", why }.into());
        }
    };
    // Without a prefix, the first token of the text has none in front of it and is not scored. If the prefix has several
    // tokens, the engine scores all but its first one, and these scores are dropped here.
    let (first, dropped) = (usize::from(prefix.is_empty()), prefix.len().saturating_sub(1));
    let windows: Vec<&[u32]> = ids.chunks(each).filter(|text| text.len() > first).collect();
    if windows.is_empty() {
        let why = format!("a text of {} tokens has none to score", ids.len());
        return Err(Error::Prompt { why, next }.into());
    }
    let total = windows.iter().map(|text| text.len() - first).sum();
    let bar = terminal::bar("scoring", total as u64, false);
    let mut sum = async || {
        let mut nats = 0.0;
        for text in &windows {
            let all = [prefix, text].concat();
            let mut drop = dropped;
            engine.begin(0, &Sampling::default())?;
            // Each piece begins with the last token of the one before.
            for at in (0..all.len() - 1).step_by(PIECE) {
                let scores = engine.nll(0, &all[at..all.len().min(at + PIECE + 1)]).await?;
                let skip = drop.min(scores.len());
                drop -= skip;
                nats += scores[skip..].iter().map(|&nats| f64::from(nats)).sum::<f64>();
                bar.inc((scores.len() - skip) as u64);
            }
        }
        Ok::<_, Error>(nats)
    };
    let nats = sum().await;
    bar.finish_and_clear();
    Ok(Score { nats: nats?, tokens: total, windows: windows.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = nemoflash_fables::HELD_OUT;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_bytes(nemoflash_fables::TOKENIZER).unwrap()
    }

    #[test]
    fn parts_give_the_tokens_of_the_whole() {
        let tokenizer = tokenizer();
        let whole = tokenizer.encode(TEXT, false).unwrap();
        for part in [100, 1000, 4099] {
            assert_eq!(tokenize(&tokenizer, TEXT, part, usize::MAX).unwrap(), whole, "{part}");
        }
        assert_eq!(tokenize(&tokenizer, TEXT, 100, 77).unwrap(), whole[..77]);
        // Negative control: a cut at any other place changes the tokens.
        let middle = TEXT.split_at(1003);
        let two = [middle.0, middle.1].map(|half| tokenizer.encode(half, false).unwrap()).concat();
        assert_ne!(two, whole);
    }

    #[test]
    fn cuts_are_in_front_of_a_space_between_letters() {
        assert_eq!(cut("ab cd. ef\n gh", 12), 2);
        assert_eq!(cut("ab cd", 5), 5);
        // Without such a space, the cut is between two characters.
        assert_eq!(cut("a\u{e4}\u{e4}", 4), 3);
        assert_eq!(cut(&" ".repeat(10), 7), 7);
    }
}
