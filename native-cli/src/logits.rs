//! `nemoflash logits`: reads token ids, and writes their logits and the greedy continuation to a safetensors file.

use crate::args::Common;
use crate::report::Exit;
use crate::{open, outfile, source, terminal};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use nemoflash::{Event, Sampling};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("input").required(true)))]
pub struct Logits {
    /// The token ids that the model reads, separated by commas
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', group = "input")]
    pub ids: Vec<u32>,
    /// A safetensors file with the token ids that the model reads, in an I32 tensor `ids`
    #[arg(long, value_name = "FILE", group = "input")]
    pub ids_file: Option<PathBuf>,
    /// Also continue the ids by N tokens, each the most probable one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub greedy: u32,
    /// The safetensors file to write. It holds `logits` (F32, a row for each id, a column for each token of the vocabulary) and
    /// `greedy` (I32, the N ids of --greedy)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If the ids, the model or the device cannot be used, or the file cannot be written.
pub async fn run(common: &Common, args: &Logits) -> Result<Exit> {
    let inputs: Vec<_> = outfile::inputs(common).into_iter().chain(args.ids_file.clone()).collect();
    outfile::check(&args.out, &inputs)?;
    let ids = match &args.ids_file {
        Some(path) => read_ids(path)?,
        None => args.ids.clone(),
    };
    let mut engine = open::without_tokenizer(common).await?.engine;
    let vocab = engine.config().vocab_size as usize;
    // The last token of the continuation is not read again, so it needs no room in the context.
    let (context, room) = (engine.context(), (engine.context() as usize + 1).saturating_sub(ids.len()));
    if ids.len() <= context as usize && args.greedy as usize > room {
        bail!("--greedy {}: only {room} fit into the context of {context}. Ask for fewer", args.greedy);
    }
    engine.begin(0, &Sampling::default())?;
    let logits = engine.logits(0, &ids).await?;

    let mut greedy: Vec<i32> = vec![];
    if args.greedy > 0 {
        engine.begin(0, &Sampling::default())?;
        let mut keep = |event| {
            if let Event::Token(id) = event {
                greedy.push(id as i32);
            }
            ControlFlow::Continue(())
        };
        engine.generate(0, &ids, args.greedy, &mut keep).await?;
    }

    let shape = vec![ids.len(), vocab];
    let tensors = [
        ("logits", TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&logits))?),
        ("greedy", TensorView::new(Dtype::I32, vec![greedy.len()], bytemuck::cast_slice(&greedy))?),
    ];
    let bytes = safetensors::serialize(tensors, None)?;
    let shown = args.out.display();
    outfile::write(&args.out, &bytes)?;
    let (tokens, chosen) = (ids.len(), greedy.len());
    if common.json {
        let summary = serde_json::json!({ "out": args.out, "tokens": tokens, "vocab": vocab, "greedy": greedy });
        terminal::print(&format!("{summary}\n"))?;
    } else {
        terminal::note(&format!("wrote {shown}: logits [{tokens}, {vocab}], greedy [{chosen}]"));
    }
    Ok(Exit::Done)
}

fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let bytes = source::read(path)?;
    let shown = path.display();
    let next = "It must be a safetensors file with an I32 tensor `ids`";
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{shown} cannot be used. {next}"))?;
    let ids = file.tensor("ids").with_context(|| format!("{shown} cannot be used. {next}"))?;
    if ids.dtype() != Dtype::I32 {
        bail!("{shown}: `ids` has type {:?}. {next}", ids.dtype());
    }
    let numbers = ids.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    numbers
        .map(|id| u32::try_from(id).with_context(|| format!("{shown}: `ids` holds {id}. Ids are not negative")))
        .collect()
}
