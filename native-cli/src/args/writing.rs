//! How text is written: the options that generate and chat share.

use clap::{Args, ValueEnum};
use nemoflash::{ChatFormat, ChatOptions, Message, Role, TemplateOptions, defaults};

/// Advice for `--max-tokens -1`, which means "no limit" in some tools.
const ENDS: &str = "For no limit write a large number: an answer ends where the context is full";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain text: the model continues what you write
    Text,
    /// Questions and answers: `User: ...`, `Assistant:`
    Instruct,
    /// Questions and answers as the model's own chat template writes them
    Template,
}

impl Format {
    fn core(self) -> ChatFormat {
        match self {
            Format::Text => ChatFormat::Text,
            Format::Instruct => ChatFormat::Instruct,
            Format::Template => ChatFormat::Template,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How text is written: the options that generate and chat share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the text")]
pub struct Writing {
    /// How your text is put to the model [default: text; in a chat: template if the model has one, else instruct if its name
    /// contains "Instruct", else text]
    #[arg(long)]
    pub format: Option<Format>,
    /// An instruction for the whole conversation, for models with a chat template
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Whether the model thinks before it answers. Chat templates see it as `enable_thinking` [default: as the template says]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub thinking: Option<Switch>,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = defaults::MAX_TOKENS, value_parser = whole::<u32>(1, ENDS), allow_negative_numbers = true)]
    pub max_tokens: u32,
    /// How random the choice of a token is: 0 always takes the most probable one, and higher values give more surprising text
    /// [default: as the model's generation_config.json says, or 0.8]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Choose among the N most probable tokens; 0 is off [default: as generation_config.json says, or 40]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0, "0 chooses among all tokens"), allow_negative_numbers = true)]
    pub top_k: Option<u32>,
    /// Choose among the most probable tokens whose probabilities add up to F; 1 is off [default: as generation_config.json
    /// says, or 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Leave out tokens less probable than F times the most probable one; 0 is off [default: as generation_config.json says,
    /// or 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Make tokens that the text already has less probable, by this factor; 1 is off [default: as generation_config.json says,
    /// or 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Seed of the random choices: the same seed, options, prompt, model and device give the same text [default: random; it is
    /// printed at the end]
    #[arg(long, value_name = "N", value_parser = whole::<u64>(0, "Leave --seed out for a random one"), allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Stop in front of this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl Writing {
    /// The core's options for an answer. Without `--seed`, a random seed is drawn.
    pub fn options(&self) -> ChatOptions {
        ChatOptions {
            format: self.format.map(Format::core),
            template: TemplateOptions { thinking: self.thinking.map(|switch| switch == Switch::On), now: None },
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or_else(random_seed),
            stop: self.stop.clone(),
        }
    }

    /// The messages that every conversation begins with: the text of `--system`, if it is given.
    pub fn beginning(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::new(Role::System, text)).collect()
    }
}

/// Makes a parser of whole numbers of at least `least`. `next` ends its error: it says what to write instead.
pub fn whole<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    least: u64,
    next: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<u64>() {
        Ok(number) if number >= least => T::try_from(number).map_err(|_| "it is too large".to_owned()),
        _ => Err(format!("it is not a whole number of at least {least}. {next}")),
    }
}

/// A random seed of at most 24 bits: short enough to be typed again.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 40
}
