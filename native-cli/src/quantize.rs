//! `nemoflash quantize`: writes a model's folder with its matrices in 4 or 8 bits, in the layout of MLX.

use crate::args::{Common, Quantize};
use crate::folder::{Entry, Folder};
use crate::lines;
use crate::report::Exit;
use crate::source::{Source, Tensors};
use crate::terminal;
use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint::Dtype;
use nemoflash::{Config, Quant, Tensor};
use serde_json::json;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;

/// Names of tensors in a checkpoint.
const HEAD: &str = "lm_head.weight";
const EMBED: &str = "model.embed_tokens.weight";

/// A tensor that is read, and what is done with it.
struct Job {
    tensor: Tensor,
    /// Its place: the index of its file, its first byte there, and the byte behind its last one.
    at: (usize, u64, u64),
    dtype: Dtype,
    quantise: bool,
}

/// Runs the command.
///
/// # Errors
/// If the model or the options cannot be used, or the folder cannot be written.
pub fn run(common: &Common, args: &Quantize) -> Result<Exit> {
    let quant = Quant::new(args.bits, args.group_size);
    quant.validate()?;
    let source = Source::open(common)?;
    let (beside, name, place) = (source.beside()?, source.name.clone(), source.place().map(Path::to_owned));
    let mut input = Tensors::open(source)?;
    let config = Config::resolve(&input.config, &input.headers)?;
    config.check(&input.headers)?;
    if config.quantization.is_some() {
        bail!("{name} is quantised already. Quantise the original model");
    }
    let jobs = jobs(&mut input, &config, quant)?;
    let entries: Vec<Entry> = jobs.iter().flat_map(|job| outputs(job, quant)).collect();
    let folder = Folder::create(&args.out, place.as_deref())?;
    let bar = terminal::bar("quantising", jobs.iter().map(|job| job.at.2 - job.at.1).sum(), true);
    // A quantised tensor becomes three tensors. Scales and biases are computed while the integers are written.
    let (mut scales, mut biases) = (vec![], vec![]);
    let order: Vec<(usize, Part)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(i, job)| match job.quantise {
            true => vec![(i, Part::Integers), (i, Part::Scales), (i, Part::Biases)],
            false => vec![(i, Part::AsItIs)],
        })
        .collect();
    folder.tensors(&entries, &mut |at, file| {
        let (i, part) = order[at];
        match part {
            Part::Scales => return Ok(file.write_all(&bytes(&std::mem::take(&mut scales)))?),
            Part::Biases => return Ok(file.write_all(&bytes(&std::mem::take(&mut biases)))?),
            Part::Integers | Part::AsItIs => {}
        }
        let job = &jobs[i];
        let (shard, begin, end) = job.at;
        let size = (job.dtype.bits() / 8) as usize;
        let unit = if job.quantise { job.tensor.shape[1] as usize * size } else { 1 };
        let mut done = 0u64;
        input.read(shard, begin, end, unit, &mut |piece| {
            bar.inc(piece.len() as u64);
            if !job.quantise {
                return Ok(file.write_all(piece)?);
            }
            let numbers = nemoflash::checkpoint::numbers(&job.tensor.name, job.dtype, done, piece)?;
            done += numbers.len() as u64;
            let (mut packed, mut pairs) = (vec![], vec![]);
            quant.quantise(&numbers, &mut packed, &mut pairs);
            scales.extend(pairs.iter().map(|&pair| pair as u16));
            biases.extend(pairs.iter().map(|&pair| (pair >> 16) as u16));
            let packed: Vec<u8> = packed.iter().flat_map(|word| word.to_le_bytes()).collect();
            Ok(file.write_all(&packed)?)
        })
    })?;
    bar.finish_and_clear();
    folder.file("config.json", with_quantization(&input.config, quant)?.as_bytes())?;
    for (name, bytes) in &beside {
        folder.file(name, bytes)?;
    }
    folder.finish()?;
    let (before, after) = (jobs.iter().map(|job| job.at.2 - job.at.1).sum::<u64>(), size_of(&entries));
    let (shown, bits) = (args.out.display(), quant.bits);
    if common.json {
        let all =
            json!({ "out": args.out, "bits": bits, "group_size": quant.group, "bytes_before": before, "bytes": after });
        terminal::print(&format!("{all}\n"))?;
    } else {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        terminal::note(&format!("wrote {shown}: {bits} bits, {:.1} MiB of {:.1}", mib(after), mib(before)));
    }
    Ok(Exit::Done)
}

#[derive(Clone, Copy)]
enum Part {
    AsItIs,
    Integers,
    Scales,
    Biases,
}

/// Every tensor that the model needs. A head that repeats the tied embedding is left out.
///
/// # Errors
/// If reading fails.
fn jobs(input: &mut Tensors, config: &Config, quant: Quant) -> Result<Vec<Job>> {
    let mut found = HashMap::new();
    for (file, header) in input.headers.iter().enumerate() {
        for tensor in &header.tensors {
            found.insert(tensor.name.clone(), ((file, tensor.begin, tensor.end), tensor.dtype));
        }
    }
    let mut tensors = config.tensors_of(&input.headers);
    if config.tie_word_embeddings
        && let (Some(head), Some(embedding)) = (found.get(HEAD), found.get(EMBED))
    {
        let mut sum = |&((file, begin, end), dtype): &((usize, u64, u64), Dtype)| {
            let mut sum = DefaultHasher::new();
            input.read(file, begin, end, 1, &mut |bytes| {
                sum.write(bytes);
                Ok(())
            })?;
            anyhow::Ok((dtype, sum.finish()))
        };
        if sum(head)? == sum(embedding)? {
            tensors.retain(|tensor| tensor.name != HEAD);
        }
    }
    let jobs = tensors.into_iter().filter_map(|tensor| {
        let &(at, dtype) = found.get(&tensor.name)?;
        let quantise = tensor.is_matrix() && tensor.shape[1].is_multiple_of(quant.group.into());
        Some(Job { tensor, at, dtype, quantise })
    });
    Ok(jobs.collect())
}

/// The tensors that are written for one tensor that is read.
fn outputs(job: &Job, quant: Quant) -> Vec<Entry> {
    let Tensor { name, shape, .. } = &job.tensor;
    if !job.quantise {
        return vec![Entry { name: name.clone(), dtype: job.dtype, shape: shape.clone() }];
    }
    let (outs, cols) = (shape[0], shape[1]);
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let groups = vec![outs, cols / u64::from(quant.group)];
    vec![
        Entry { name: name.clone(), dtype: Dtype::U32, shape: vec![outs, cols * u64::from(quant.bits) / 32] },
        Entry { name: format!("{stem}.scales"), dtype: Dtype::BF16, shape: groups.clone() },
        Entry { name: format!("{stem}.biases"), dtype: Dtype::BF16, shape: groups },
    ]
}

fn bytes(halves: &[u16]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_le_bytes()).collect()
}

fn size_of(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::bytes).sum()
}

/// config.json with the block that MLX writes, under both names that MLX gives it. The text is otherwise unchanged, so numbers
/// that only Python reads (`Infinity`) stay as they are.
fn with_quantization(config: &[u8], quant: Quant) -> Result<String> {
    let text = lines::utf8(config.to_vec(), "config.json")?;
    let end = text.rfind('}').context("config.json does not end with }. Use the checkpoint's own file")?;
    let keys = text[..end].trim_end();
    let block = json!({ "group_size": quant.group, "bits": quant.bits });
    let comma = if keys.ends_with('{') { "" } else { "," };
    Ok(format!("{keys}{comma}\n  \"quantization\": {block},\n  \"quantization_config\": {block}\n}}\n"))
}
