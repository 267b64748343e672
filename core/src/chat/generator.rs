//! [`Generator`]: from the files of a model to its text, in a few lines.

use super::{Answer, Chat, ChatEvent, ChatFormat, ChatOptions, ModelText, TextFiles};
use crate::text::{ChatFiles, Message, Role};
use crate::{Engine, EngineOptions, Error, Exec, LoadOptions, Loaded, Loader, Model, Result, Want, checkpoint};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

/// Longest small file that is read, in bytes. Each reader has a limit of its own below this one.
const MAX_SMALL: u64 = 64 << 20;
/// Bytes of weights that are read at a time.
const PIECE: u64 = 8 << 20;
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model that is ready to continue texts and to chat: an engine, the text side of the model, and one conversation.
///
/// ```
/// use nemoflash::{ChatOptions, Exec, Generator};
///
/// # pollster::block_on(async {
/// # let folder = std::path::Path::new(nemoflash_fables::FOLDER);
/// let mut model = Generator::open(Exec::cpu(), |name| std::fs::File::open(folder.join(name))).await?;
/// let options = ChatOptions { max_tokens: 10, ..Default::default() };
/// let answer = model.generate("Once upon a time", &options, |piece| print!("{piece}")).await?;
/// assert_eq!(answer.ids.len(), 10);
/// # Ok::<(), nemoflash::Error>(())
/// # })?;
/// # Ok::<(), nemoflash::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    engine: Engine,
    text: ModelText,
    chat: Chat,
}

impl Generator {
    /// Loads a model onto a device. The longest context is the default of [`Config::context`](crate::Config::context).
    ///
    /// The library reads no files by itself, so the caller lends them. `open` opens the file with a given name (such as
    /// `config.json` or `model.safetensors`), from a folder, an archive or memory, or returns [`ErrorKind::NotFound`].
    /// Weights are read in pieces, so no more than a few megabytes of them are in the host's memory at a time.
    ///
    /// # Errors
    /// [`Error::File`] if a required file is missing, or if a file cannot be read. Others as [`Loader`],
    /// [`Engine::new`] and [`ModelText::new`].
    pub async fn open<F: Read + Seek>(exec: Exec, open: impl FnMut(&str) -> io::Result<F>) -> Result<Generator> {
        let engine =
            |model: &Model| Ok(EngineOptions { context: model.config.context(None)?, ..EngineOptions::default() });
        Generator::open_with(exec, open, LoadOptions::default(), engine).await
    }

    /// As [`Generator::open`], with options. `engine` gets the model, because options such as the context may depend on
    /// it.
    ///
    /// # Errors
    /// As [`Generator::open`], and the errors of `engine`.
    pub async fn open_with<F: Read + Seek>(
        exec: Exec,
        open: impl FnMut(&str) -> io::Result<F>,
        load: LoadOptions,
        engine: impl FnOnce(&Model) -> Result<EngineOptions>,
    ) -> Result<Generator> {
        let mut files = Files { open };
        let text = files.text()?;
        let loaded = files.load(exec, load).await?;
        let options = engine(loaded.model())?;
        Ok(Generator { engine: Engine::new(loaded, options).await?, text, chat: Chat::default() })
    }

    /// Continues a text. With another format in the options, it answers a single question instead. `show` gets the
    /// answer piece by piece.
    ///
    /// # Errors
    /// As [`Chat::answer`].
    pub async fn generate(&mut self, prompt: &str, options: &ChatOptions, show: impl FnMut(&str)) -> Result<Answer> {
        let options = ChatOptions { format: options.format.or(Some(ChatFormat::Text)), ..options.clone() };
        let messages = vec![Message::new(Role::User, prompt)];
        Chat::default().answer(&mut self.engine, &self.text, messages, &options, &mut shown(show)).await
    }

    /// The next turn of a conversation. Its format is that of the options, or else the chat template of the model, or
    /// else plain text that goes on. `show` gets the answer piece by piece.
    ///
    /// # Errors
    /// As [`Chat::say`].
    pub async fn chat(&mut self, content: &str, options: &ChatOptions, show: impl FnMut(&str)) -> Result<Answer> {
        self.chat.say(&mut self.engine, &self.text, content, options, &mut shown(show)).await
    }

    /// Begins a new conversation.
    pub fn reset(&mut self) {
        self.chat.reset(&mut self.engine);
    }

    /// The parts: the engine, the text side, and the conversation.
    pub fn into_parts(self) -> (Engine, ModelText, Chat) {
        (self.engine, self.text, self.chat)
    }
}

/// An event handler that passes every piece of text to `show` and never stops the answer.
fn shown(mut show: impl FnMut(&str)) -> impl FnMut(ChatEvent) -> ControlFlow<()> {
    move |event| {
        if let ChatEvent::Token { text, .. } | ChatEvent::Rest(text) = event
            && !text.is_empty()
        {
            show(&text);
        }
        ControlFlow::Continue(())
    }
}

/// The files that the caller lends.
struct Files<O> {
    open: O,
}

fn failed(name: &str, error: &io::Error) -> Error {
    Error::File { name: name.to_owned(), why: error.to_string() }
}

impl<F: Read + Seek, O: FnMut(&str) -> io::Result<F>> Files<O> {
    /// A file, or `None` if it does not exist.
    fn open(&mut self, name: &str) -> Result<Option<F>> {
        match (self.open)(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(name, &error)),
        }
    }

    /// The bytes of a small file, or `None` if it does not exist.
    fn small(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = vec![];
        file.take(MAX_SMALL + 1).read_to_end(&mut bytes).map_err(|error| failed(name, &error))?;
        match bytes.len() as u64 <= MAX_SMALL {
            true => Ok(Some(bytes)),
            false => Err(Error::File { name: name.to_owned(), why: format!("it has more than {MAX_SMALL} bytes") }),
        }
    }

    /// The bytes of a small file that is required.
    fn needed(&mut self, name: &str) -> Result<Vec<u8>> {
        let missing = || Error::File { name: name.to_owned(), why: "it is missing".to_owned() };
        self.small(name)?.ok_or_else(missing)
    }

    fn text(&mut self) -> Result<ModelText> {
        let tokenizer_json = self.needed("tokenizer.json")?;
        let generation_config = self.small("generation_config.json")?;
        let [jinja, config, json, map] =
            ["chat_template.jinja", "tokenizer_config.json", "chat_template.json", "special_tokens_map.json"]
                .map(|name| self.small(name));
        let (jinja, config, json, map) = (jinja?, config?, json?, map?);
        ModelText::new(&TextFiles {
            name: "",
            tokenizer_json: &tokenizer_json,
            generation_config: generation_config.as_deref(),
            chat: ChatFiles {
                chat_template_jinja: jinja.as_deref(),
                tokenizer_config: config.as_deref(),
                chat_template_json: json.as_deref(),
                special_tokens_map: map.as_deref(),
            },
        })
    }

    async fn load(mut self, exec: Exec, load: LoadOptions) -> Result<Loaded> {
        let config = self.needed("config.json")?;
        let mut files = vec![];
        if let Some(file) = self.open(WEIGHTS)? {
            files.push((WEIGHTS.to_owned(), file));
        } else {
            let index = self.small(INDEX)?.ok_or_else(|| Error::File {
                name: WEIGHTS.to_owned(),
                why: format!("it is missing, and so is {INDEX}"),
            })?;
            for name in checkpoint::index(&index)? {
                let missing =
                    || Error::File { name: name.clone(), why: format!("{INDEX} names it, and it is missing") };
                let file = self.open(&name)?.ok_or_else(missing)?;
                files.push((name, file));
            }
        }
        let mut lengths = vec![];
        for (name, file) in &mut files {
            lengths.push(Some(file.seek(SeekFrom::End(0)).map_err(|error| failed(name, &error))?));
        }
        let mut loader = Loader::with_options(exec, &config, &lengths, load)?;
        let mut piece = vec![];
        while let Some(Want { file, offset }) = loader.wants() {
            let (name, file) = &mut files[file];
            piece.clear();
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.take(PIECE).read_to_end(&mut piece))
                .map_err(|error| failed(name, &error))?;
            if piece.is_empty() {
                // The file ends here. The loader reports what is missing.
                break;
            }
            loader.push(&piece).await?;
        }
        loader.finish().await
    }
}
