//! Opens the device and the model that the options name.

use crate::args::{Common, Device, Writing};
use crate::report::Usage;
use crate::source::{Reads, Source};
use crate::{memory, quiet, terminal};
use anyhow::{Result, bail};
use nemoflash::{
    ChatFormat, ChatOptions, Engine, EngineOptions, Error, Exec, Gpu, Loaded, LocalTime, ModelText, Tokenizer,
};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Advice for a machine without a usable GPU driver.
pub const INSTALL: &str = if cfg!(target_os = "linux") {
    "To use a GPU, install its Vulkan driver (on Debian and Ubuntu: apt install mesa-vulkan-drivers)"
} else if cfg!(target_os = "windows") {
    "To use a GPU, install the current driver of its maker"
} else {
    "To use a GPU, run on a system with Metal, Vulkan or DX12"
};

/// The engine's clock: seconds since the first call.
pub fn seconds() -> f64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed().as_secs_f64()
}

/// The local date and time, which chat templates may ask for.
fn now() -> Option<LocalTime> {
    let now = jiff::ZonedDateTime::now().datetime();
    let [year, month, day, hour, minute, second] =
        [now.year(), now.month().into(), now.day().into(), now.hour().into(), now.minute().into(), now.second().into()]
            .map(|part| u32::try_from(part).unwrap_or(0));
    LocalTime::new(year, month, day, hour, minute, second).ok()
}

/// A model that is ready to run.
#[derive(Debug)]
pub struct Opened {
    /// The engine, with model, memory and device.
    pub engine: Engine,
    /// Name of the device, to be shown.
    pub adapter: String,
    /// The model's name: that of its folder or of its repository.
    pub name: String,
    /// Time from opening the first file until the engine was ready.
    pub load: Duration,
}

/// Opens the model with its text side, and completes the options: without a format, `chat` uses the one that fits the model,
/// and `generate` uses plain text.
///
/// # Errors
/// If a file, an option or the device cannot be used.
pub async fn to_write(common: &Common, writing: &Writing, chat: bool) -> Result<(Opened, ModelText, ChatOptions)> {
    let start = Instant::now();
    let mut options = writing.options();
    options.template.now = now();
    let reads = match options.format {
        None if chat => Reads::All,
        Some(ChatFormat::Template) => Reads::All,
        _ => Reads::Plain { greedy: options.temperature == Some(0.0) },
    };
    let source = Source::open_for(common, reads)?;
    let text = source.text()?;
    let format = if chat { text.format(&options)? } else { options.format.unwrap_or(ChatFormat::Text) };
    options.format = Some(format);
    if format == ChatFormat::Template && text.template()?.is_none() {
        bail!(
            "{} has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja). Use --format \
             text or --format instruct",
            source.name
        );
    }
    if format != ChatFormat::Template && writing.system.is_some() {
        let why = "--system is for models with a chat template. Leave it out, or write it into the prompt";
        return Err(Usage(why.into()).into());
    }
    if format != ChatFormat::Template && writing.thinking.is_some() {
        let why = "--thinking is for models with a chat template, and for --format template. Leave it out";
        return Err(Usage(why.into()).into());
    }
    let guessed = chat && writing.format.is_none() && source.place().is_some();
    let opened = engine(common, source, 1, common.context, start).await?;
    if guessed && format != ChatFormat::Template {
        note_guess(&opened.name, format);
    }
    Ok((opened, text, options))
}

/// Tells the user that the format is a guess from the model's name, because the model has no chat template.
fn note_guess(name: &str, format: ChatFormat) {
    let guess = match format {
        ChatFormat::Instruct => {
            "it is asked with `User:` and `Assistant:`, as its name says Instruct (--format instruct)"
        }
        _ => "its name does not say Instruct, so it continues your text (--format text)",
    };
    terminal::note(&format!("note: {name} has no chat template: {guess}. --format chooses"));
}

/// Opens the model with its tokenizer.
///
/// # Errors
/// If a file, an option or the device cannot be used.
pub async fn with_tokenizer(common: &Common) -> Result<(Opened, Tokenizer)> {
    let start = Instant::now();
    let source = Source::open(common)?;
    let tokenizer = source.tokenizer()?;
    Ok((engine(common, source, 1, common.context, start).await?, tokenizer))
}

/// Opens the model without its tokenizer, which need not exist.
///
/// # Errors
/// If a file, an option or the device cannot be used.
pub async fn without_tokenizer(common: &Common) -> Result<Opened> {
    let start = Instant::now();
    engine(common, Source::open(common)?, 1, common.context, start).await
}

/// As [`without_tokenizer`], for several sequences of `context` tokens.
///
/// # Errors
/// The same.
pub async fn with_slots(common: &Common, slots: u32, context: Option<u32>) -> Result<Opened> {
    let start = Instant::now();
    engine(common, Source::open(common)?, slots, context, start).await
}

/// Opens the model for a dry run: config.json and the headers of the weight files are read, but no weights, and nothing is
/// allocated on the device.
///
/// # Errors
/// If a file, an option or the device cannot be used.
pub async fn dry_run(common: &Common) -> Result<Opened> {
    let start = Instant::now();
    let source = Source::open(common)?;
    let (exec, adapter) = device(common).await?;
    let name = source.name.clone();
    let dry = source.dry_run(exec.caps(), common.load()).await?;
    let options = options(common, &dry, 1, common.context)?;
    let engine = Engine::new(dry, options).await?;
    Ok(Opened { engine, adapter, name, load: start.elapsed() })
}

async fn engine(common: &Common, source: Source, slots: u32, context: Option<u32>, start: Instant) -> Result<Opened> {
    let (exec, adapter) = device(common).await?;
    let name = source.name.clone();
    let bar = terminal::bar("loading", 0, true);
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let loaded = source.load(exec, common.load(), &mut progress).await;
    bar.finish_and_clear();
    let loaded = loaded?;
    for note in loaded.notes() {
        terminal::note(&format!("note: {note}"));
    }
    let options = options(common, &loaded, slots, context)?;
    let mut engine = Engine::new(loaded, options).await?;
    engine.wait().await?;
    Ok(Opened { engine, adapter, name, load: start.elapsed() })
}

fn options(common: &Common, loaded: &Loaded, slots: u32, context: Option<u32>) -> Result<EngineOptions> {
    let context = match (&common.arch, context) {
        // Random weights were trained on no text, so no length is too long for them.
        (Some(_), Some(context)) => context,
        _ => loaded.model().config.context(context)?,
    };
    Ok(EngineOptions {
        slots,
        context,
        kv: common.kv(),
        scan: common.scan(),
        clock: Some(seconds),
        ..Default::default()
    })
}

/// Opens the device that the options name. Returns it with its name. A note says if the CPU is used because there is no GPU.
///
/// # Errors
/// If there is no such device.
pub async fn device(common: &Common) -> Result<(Exec, String)> {
    let cpu = || Ok((Exec::cpu_within(memory::most()), "cpu".to_owned()));
    let asks_for_gpu = [("--backend", common.backend.is_some()), ("--adapter", common.adapter.is_some())];
    let asked = asks_for_gpu.into_iter().find(|(_, given)| *given);
    match (common.device, asked) {
        (Some(Device::Cpu), Some((option, _))) => {
            Err(Usage(format!("{option} chooses a GPU and --device cpu uses none. Leave one of them out")).into())
        }
        (Some(Device::Cpu), None) => cpu(),
        (device, _) => match quiet::during(common.verbose, Gpu::new(&common.gpu())).await {
            // A GPU in software is slower than the CPU twins, so it is used only on request.
            Ok(gpu) if gpu.info().kind == "cpu" && device.is_none() && asked.is_none() => {
                let name = &gpu.info().name;
                terminal::note(&format!(
                    "note: the only GPU found is in software ({name}), so the CPU runs the model; --device gpu uses it. If this \
                     machine has a real GPU, its driver is missing (docs/troubleshooting.md)"
                ));
                cpu()
            }
            Ok(gpu) => {
                let adapter = format!("{} ({})", gpu.info().name, gpu.info().backend);
                Ok((Exec::Gpu(Box::new(gpu)), adapter))
            }
            Err(Error::NoAdapter { .. }) if device.is_none() && asked.is_none() => {
                terminal::note(&format!("note: no usable GPU adapter, so the CPU runs the model. {INSTALL}"));
                cpu()
            }
            Err(error) => Err(error.into()),
        },
    }
}
