//! `nemoflash profile depth-width`: measures latency by depth and width, and finds the sweet spot of a latency budget.

use super::lab::{Lab, Protocol};
use super::law::Law;
use super::options::{DepthWidth, Pattern, STEP};
use super::output;
use super::points::Point;
use super::sections;
use super::study::{Choice, DepthWidth as Results, Measured, SCHEMA, SweetSpot};
use crate::args::Common;
use crate::bench::{software, today, weights_name};
use crate::html::units::{digits, seconds};
use crate::outfile::Growing;
use crate::report::Exit;
use anyhow::{Result, bail};
use nemoflash::Config;
use nemoflash_bench::lookup::{Part, Shape, Stack, letters};
use nemoflash_bench::report::{Clock, Kind, Summary};
use nemoflash_bench::{Turns, warnings};

/// Largest width of a stack.
const WIDEST: u32 = 16_384;
/// If a stack's number of parameters is off by more than this share, there is a warning.
const NEAR: f64 = 0.1;

/// Runs the study.
///
/// # Errors
/// If the points are too few for the law, results cannot be written, or the device cannot be opened again. After everything has
/// been written: if nothing was measured.
pub async fn run(
    common: &Common,
    args: &DepthWidth,
    points: Option<Vec<Point>>,
    mut lab: Lab<'_>,
    mut file: Option<Growing>,
) -> Result<Exit> {
    let law = points.as_deref().map(Law::fit).transpose()?;
    let small = lab.small;
    let [tokens, runs, vocab, before] = if small { [8, 7, 4096, 0] } else { [128, 5, 131_072, 448] };
    let tokens = args.output.n_gen.unwrap_or(tokens);
    let before = args.n_depth.unwrap_or(before);
    let shape = shape(&args.pattern, args.output.vocab.unwrap_or(vocab));
    let protocol = Protocol {
        shape,
        slots: 1,
        context: common.context.unwrap_or(0).max(before + tokens + 1),
        tokens,
        runs: args.output.repetitions.unwrap_or(runs),
    };
    let mut results = Results {
        schema: SCHEMA.into(),
        date: today(),
        software: software(),
        device: lab.device.clone(),
        gate: lab.gate,
        weights: weights_name(common),
        kv: format!("{:?}", common.kv()).to_lowercase(),
        clock: Clock::Wall,
        tokens_before: before,
        tokens,
        runs: protocol.runs,
        pattern: letters(&args.pattern.0),
        shape,
        stacks: vec![],
        law,
        sweet_spots: vec![],
        warnings: lab.warnings.clone(),
    };
    results.warnings.extend(results.law.iter().flat_map(|law| law.warnings.clone()));
    for stack in grid(args, small, &shape) {
        let Measured { depth, width, .. } = stack;
        let blocks = args.pattern.0.repeat(depth as usize);
        let name = format!("depth {depth}");
        let turns = Turns { test: protocol.test(1, before), selections: vec![(0..blocks.len()).collect()] };
        let timed = lab.time(&Stack { name, hidden: width, blocks }, &protocol, &[turns]).await?;
        let (samples, error) = match timed {
            Ok(None) => break,
            Ok(Some(timed)) => (timed.samples.into_iter().flatten().flatten().collect(), None),
            Err(error) => (vec![], Some(format!("not measured: {error}"))),
        };
        let loss = results.law.as_ref().map(|law| law.loss(depth.into(), width.into()));
        results.stacks.push(Measured { seconds: Summary::of(&samples), samples, loss, error, ..stack });
        output::keep(&mut file, &results)?;
    }
    results.warnings.extend(doubts(&results.stacks));
    results.sweet_spots = args.budget.iter().map(|ms| sweet_spot(&results, ms / 1e3)).collect();
    let page = || sections::depth_width(&results);
    output::write(common, &args.output, file, &results, &results.warnings, || text(&results), page)?;
    if lab.stopped() {
        return Ok(Exit::Interrupted);
    }
    if results.stacks.iter().all(|stack| stack.seconds.is_none()) {
        bail!("nothing was measured; each stack says why. Try smaller --params");
    }
    Ok(Exit::Done)
}

/// Warnings about what makes the numbers less certain. Each kind comes once, with the first stack that it concerns.
fn doubts(stacks: &[Measured]) -> Vec<String> {
    let mut doubts = vec![];
    let off = |stack: &Measured| stack.parameters as f64 / stack.wanted as f64 - 1.0;
    let far: Vec<&Measured> = stacks.iter().filter(|stack| off(stack).abs() > NEAR).collect();
    if let Some(first) = far.first() {
        doubts.push(format!(
            "{} of {} stacks have a number of parameters more than {:.0} % off what was asked for (depth {}: {:+.0} %), since \
             no width comes nearer. Compare these stacks by the parameters that they have",
            far.len(),
            stacks.len(),
            NEAR * 100.0,
            first.depth,
            off(first) * 100.0
        ));
    }
    let doubted =
        stacks.iter().filter_map(|stack| Some((stack, warnings(Kind::Decode, &stack.samples).into_iter().next()?)));
    let doubted: Vec<(&Measured, String)> = doubted.collect();
    if let Some((Measured { depth, width, .. }, why)) = doubted.first() {
        let (some, all) = (doubted.len(), stacks.len());
        doubts.push(format!("the runs of {some} of {all} stacks differ. Depth {depth}, width {width}: {why}"));
    }
    doubts
}

/// Proportions of the blocks. They are those of Nemotron-Flash. A pattern of only attention and FFN has the attention of Llama,
/// in which each query head has its own keys and values. The heads have 64 dimensions, because 64 divides every width.
fn shape(pattern: &Pattern, vocab: u32) -> Shape {
    let llama = pattern.0.iter().all(|part| matches!(part, Part::Attention | Part::Ffn));
    let queries_per_kv = if llama { 1 } else { Shape::default().queries_per_kv };
    Shape { vocab, head_dim: STEP, queries_per_kv, ..Shape::default() }
}

/// What is measured.
fn grid(args: &DepthWidth, small: bool, shape: &Shape) -> Vec<Measured> {
    let depths: &[u32] = match &args.depths[..] {
        [] if small => &[2, 4, 8],
        [] => &[6, 12, 18, 24, 30],
        given => given,
    };
    let params: &[u64] = match &args.params[..] {
        [] if small => &[2_000_000, 4_000_000],
        [] => &[500_000_000, 1_000_000_000],
        given => given,
    };
    let all = params.iter().flat_map(|&wanted| depths.iter().map(move |&depth| (wanted, depth)));
    let stack = |(wanted, depth)| {
        let (width, parameters) = width(shape, &args.pattern.0, depth, wanted);
        Measured { wanted, parameters, depth, width, samples: vec![], seconds: None, loss: None, error: None }
    };
    all.map(stack).collect()
}

/// The width that comes nearest to the wanted number of parameters, and the number that it has.
fn width(shape: &Shape, pattern: &[Part], depth: u32, wanted: u64) -> (u32, u64) {
    let count = |width: u32| parameters(shape, pattern, depth, width);
    let mut best = (STEP, count(STEP));
    for width in (2 * STEP..=WIDEST).step_by(STEP as usize) {
        let found = count(width);
        if found.abs_diff(wanted) < best.1.abs_diff(wanted) {
            best = (width, found);
        }
        if found > 2 * wanted {
            break;
        }
    }
    best
}

/// Number of parameters of a stack. Embedding and head are one matrix, which counts once.
fn parameters(shape: &Shape, pattern: &[Part], depth: u32, width: u32) -> u64 {
    let of = |blocks: &[Part]| {
        let config = Config::parse(shape.config(width, blocks).as_bytes()).ok();
        let tensors = config.map(|config| config.tensors()).unwrap_or_default();
        tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum::<u64>()
    };
    // Each repetition of the pattern adds the same number.
    let one = of(pattern);
    let two = of(&pattern.repeat(2));
    one + (two - one) * u64::from(depth - 1)
}

/// The best stack within a budget.
fn sweet_spot(results: &Results, budget: f64) -> SweetSpot {
    let by = if results.law.is_some() { Choice::Loss } else { Choice::Parameters };
    let within = results.stacks.iter().filter(|stack| stack.seconds.is_some_and(|seconds| seconds.median <= budget));
    let worth = |stack: &&Measured| match (by, stack.loss) {
        (Choice::Loss, Some(loss)) => -loss,
        _ => stack.parameters as f64,
    };
    let best = within.max_by(|a, b| worth(a).total_cmp(&worth(b)));
    SweetSpot {
        budget,
        by,
        depth: best.map(|stack| stack.depth),
        width: best.map(|stack| stack.width),
        seconds: best.and_then(|stack| Some(stack.seconds?.median)),
        loss: best.and_then(|stack| stack.loss),
    }
}

/// A sentence about a sweet spot.
pub fn sentence(spot: &SweetSpot) -> String {
    let budget = seconds(spot.budget);
    match (spot.depth, spot.width, spot.seconds, spot.by) {
        (Some(depth), Some(width), Some(time), Choice::Loss) => format!(
            "Within {budget} a token, depth {depth} with width {width} has the lowest loss by the law: {} at {}.",
            digits(spot.loss.unwrap_or(0.0)),
            seconds(time)
        ),
        (Some(depth), Some(width), Some(time), Choice::Parameters) => format!(
            "Within {budget} a token, depth {depth} with width {width} has the most parameters, at {}. Only the latency half is \
             known: without --points nothing says which of the stacks within the budget is best.",
            seconds(time)
        ),
        _ => format!("No stack keeps within {budget} a token. Allow more, or measure smaller --params."),
    }
}

/// A sentence about the law.
pub fn law_text(law: &Law) -> String {
    format!(
        "L(D, W) = {} + {} D^-{:.3} + {} W^-{:.3}; R² {:.4}, points left out are predicted within {:.2} % (mean {:.2} %)",
        digits(law.l0),
        digits(law.a),
        law.alpha,
        digits(law.b),
        law.beta,
        law.r2,
        law.left_out[0] * 100.0,
        law.left_out[1] * 100.0
    )
}

/// The results as text for the terminal.
fn text(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .stacks
        .iter()
        .map(|stack| {
            let time = |of: fn(&Summary) -> f64| stack.seconds.as_ref().map_or("-".into(), |s| digits(of(s) * 1e3));
            vec![
                stack.depth.to_string(),
                stack.width.to_string(),
                digits(stack.parameters as f64 / 1e6),
                time(|s| s.median),
                time(|s| s.low),
                time(|s| s.high),
                time(|s| s.median * 1.024),
                stack.loss.map_or("-".into(), digits),
            ]
        })
        .collect();
    let head = ["depth", "width", "parameters, M", "ms a token", "low", "high", "s for 1,024", "loss by the law"];
    let mut text = output::table(&head, &rows, 0);
    results.stacks.iter().filter_map(|stack| stack.error.as_ref()).for_each(|error| text += &format!("- {error}\n"));
    if let Some(law) = &results.law {
        text += &format!("\n{}\n", law_text(law));
    }
    results.sweet_spots.iter().for_each(|spot| text += &format!("\n{}\n", sentence(spot)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemoflash_bench::lookup::parse_blocks;

    #[test]
    fn widths_have_the_parameters() {
        let pattern = Pattern(parse_blocks("a f").unwrap());
        let shape = shape(&pattern, 131_072);
        // Counted by hand: 4 matrices of attention, 3 FFN matrices that are three times as wide, a norm for each block and one
        // at the end, and the embedding.
        let (w, d) = (1024u64, 12);
        assert_eq!(parameters(&shape, &pattern.0, d, 1024), u64::from(d) * (13 * w * w + 2 * w) + w + 131_072 * w);
        for (depth, wanted) in [(6, 500_000_000), (30, 500_000_000), (12, 1_000_000_000), (30, 1_000_000_000)] {
            let (width, found) = width(&shape, &pattern.0, depth, wanted);
            assert!(
                width.is_multiple_of(STEP) && (found as f64 / wanted as f64 - 1.0).abs() < 0.06,
                "{depth}: {width}"
            );
        }
        // With the same number of parameters, a deeper stack is narrower.
        assert!(width(&shape, &pattern.0, 30, 500_000_000).0 < width(&shape, &pattern.0, 6, 500_000_000).0);
    }
}
