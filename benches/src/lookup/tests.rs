use super::*;
use nemoflash::config::{BlockKind, Config};

const HIDDEN: u32 = 1024;

fn entry(part: Part, depth: Option<u32>, seconds: f64) -> Entry {
    Entry {
        part,
        hidden: HIDDEN,
        batch: 1,
        depth,
        dims: BTreeMap::new(),
        bytes: 0,
        blocks: 4,
        seconds: Some(seconds),
        low: Some(seconds),
        high: Some(seconds),
        error: None,
    }
}

fn table() -> Table {
    let device = Device {
        adapter: "a card".into(),
        backend: "vulkan".into(),
        kind: "discrete".into(),
        driver: String::new(),
        f16: false,
        subgroup: None,
        coopmat: false,
        denied: vec![],
    };
    let software = Software {
        version: "0.1.0".into(),
        commit: None,
        wgpu: "30".into(),
        runtime: "native".into(),
        host: "here".into(),
    };
    Table {
        schema: SCHEMA.into(),
        date: "2026-01-02T03:04:05Z".into(),
        software,
        device,
        gate: Gate::Passed,
        weights: "bf16".into(),
        kv: "f16".into(),
        clock: Clock::Wall,
        context: 8192,
        tokens: 32,
        runs: 5,
        shape: Shape::default(),
        entries: vec![
            entry(Part::Ends, None, 100.0),
            entry(Part::Ffn, None, 10.0),
            entry(Part::DeltaNet, None, 5.0),
            entry(Part::Attention, Some(0), 2.0),
            entry(Part::Attention, Some(4096), 10.0),
            entry(Part::Window, Some(4096), 3.0),
            entry(Part::Window, Some(0), 1.0),
            Entry { seconds: None, error: Some("too large".into()), ..entry(Part::Mamba2, None, 0.0) },
        ],
        stacks: vec![],
        held_out: vec![],
        accuracy: None,
        warnings: vec![],
    }
}

fn stack(text: &str) -> Stack {
    Stack { name: "a stack".into(), hidden: HIDDEN, blocks: parse_blocks(text).unwrap() }
}

#[test]
fn a_stack_is_the_sum_of_its_parts() {
    let table = table();
    let predict = |text: &str, depth| table.predict(&stack(text), 1, depth).unwrap();
    assert_eq!(predict("d f f", 0), 125.0);
    // Parts that do not look back take the same time at any depth.
    assert_eq!(predict("d f f", 1 << 20), 125.0);
    // The time of attention grows linearly, and that of a window only as far as it reaches.
    assert_eq!([predict("a", 0), predict("a", 1024), predict("a", 4096)], [102.0, 104.0, 110.0]);
    assert_eq!(
        [predict("w", 0), predict("w", 256), predict("w", 512), predict("w", 3000)],
        [101.0, 102.0, 103.0, 103.0]
    );
    let refused =
        |table: &Table, stack: &Stack, batch, depth| table.predict(stack, batch, depth).unwrap_err().to_string();
    for (text, batch, depth, word) in
        [("m2", 1, 0, "too large"), ("f", 8, 0, "for 8 at a time"), ("a", 1, 4097, "at depth 4097 (it has 0, 4096)")]
    {
        let error = refused(&table, &stack(text), batch, depth);
        assert!(error.contains(word), "{text}: {error}");
    }
    let other = Stack { hidden: 1025, ..stack("f") };
    assert!(refused(&table, &other, 1, 0).contains("hidden size 1025"));
}

#[test]
fn differences_are_those_of_runs() {
    // A delay that affects both stacks of a run cancels out of the difference.
    assert_eq!(differences(&[1.0, 11.0, 1.0], &[5.0, 15.0, 9.0], 4), [1.0, 1.0, 2.0]);
    assert!(differences(&[], &[1.0], 1).is_empty());
}

#[test]
fn accuracy_hides_nothing() {
    let held = |error: Option<f64>| HeldOut {
        name: String::new(),
        hidden: HIDDEN,
        blocks: "f".into(),
        batch: 1,
        depth: 0,
        predicted: None,
        measured: None,
        error,
        why: None,
    };
    let all = [held(Some(-0.25)), held(Some(0.05)), held(None)];
    let accuracy = Accuracy { limit: 0.1, count: 2, mean: 0.15, max: 0.25, beyond: 1 };
    assert_eq!(Accuracy::of(&all), Some(accuracy));
    assert_eq!(Accuracy::of(&all[2..]), None);
}

#[test]
fn tables_are_read_again() {
    let table = table();
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(Table::parse(json.as_bytes()).unwrap(), table);
    for (bad, word) in [
        ("[".to_owned(), "not JSON"),
        ("{}".into(), "no schema"),
        (json.replace("operators/1", "operators/2"), "nemoflash-operators/2"),
        (json.replace("\"ffn\"", "\"dense\""), "dense"),
        (json.replace("\"context\":8192", "\"context\":-1"), "-1"),
    ] {
        let error = Table::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// The shapes are those of the published models, and kernels support every hidden size of the search space.
#[test]
fn shapes_are_the_published_ones() {
    let shape = Shape::default();
    for (name, hidden) in [("nemotron-flash-1b", 2048), ("nemotron-flash-3b", 3072)] {
        let (_, json) = nemoflash::ARCHS.iter().find(|(other, _)| *other == name).unwrap();
        let published = Config::parse(json.as_bytes()).unwrap();
        let size = name.rsplit_once('-').unwrap().1.to_uppercase();
        let order = held_out(&[hidden], &Part::BLOCKS, 0).into_iter().find(|stack| stack.name.contains(&size));
        let ours = Config::parse(shape.config(hidden, &order.unwrap().blocks).as_bytes()).unwrap();
        assert_eq!((ours.hidden_size, ours.vocab_size, ours.divide_logits), (hidden, published.vocab_size, true));
        assert_eq!(ours.layers.len(), published.layers.len());
        for (ours, theirs) in ours.layers.iter().zip(&published.layers) {
            match (&ours.kind, &theirs.kind) {
                // The base of the rotary angles differs. It does not change the number of operations.
                (BlockKind::Attention(a), BlockKind::Attention(b)) => {
                    assert_eq!(
                        (a.heads, a.kv_heads, a.head_dim, a.window),
                        (b.heads, b.kv_heads, b.head_dim, b.window)
                    );
                }
                (ours, theirs) => assert_eq!(ours, theirs),
            }
        }
    }
    for hidden in [64, 128, 256, 512, 1024, 1280, 1536, 1792, 2048, 2304, 2560, 3072] {
        let config = Config::parse(shape.config(hidden, &Part::BLOCKS).as_bytes()).unwrap();
        let windows: Vec<_> = config
            .layers
            .iter()
            .filter_map(|layer| match &layer.kind {
                BlockKind::Attention(dims) => Some(dims.window),
                _ => None,
            })
            .collect();
        assert_eq!(windows, [None, Some(512)]);
        let (heads, kv_heads, dim) = shape.heads(hidden);
        assert!(heads * dim == hidden && heads.is_multiple_of(kv_heads) && heads / kv_heads <= 4 && heads >= 4);
    }
    assert_eq!(shape.heads(1280), (10, 5, 128));
}

#[test]
fn held_out_stacks_stand_at_measured_sizes() {
    let sizes = [1024, 1536, 2048, 2560];
    let stacks = held_out(&sizes, &Part::BLOCKS, 0);
    assert!(stacks.len() == 6 && stacks.iter().all(|stack| sizes.contains(&stack.hidden)), "{stacks:?}");
    assert!(stacks.iter().all(|stack| (1..=36).contains(&stack.blocks.len())));
    assert_eq!(held_out(&sizes, &Part::BLOCKS, 0), stacks);
    assert_ne!(held_out(&sizes, &Part::BLOCKS, 1), stacks);
    for seed in 0..200 {
        let drawn = held_out(&sizes, &Part::BLOCKS, seed);
        assert!(drawn[4..].iter().all(|stack| (1..=30).contains(&stack.blocks.len())), "{drawn:?}");
    }
    // Only stacks that the table can predict are returned.
    let stacks = held_out(&[64], &[Part::Attention, Part::Ffn], 0);
    assert!(stacks.len() == 1 && stacks[0].hidden == 64, "{stacks:?}");
    assert!(held_out(&[], &Part::BLOCKS, 0).is_empty());
}

#[test]
fn letters_are_read_and_written() {
    let text = "a w m2 d f";
    assert_eq!(letters(&parse_blocks(text).unwrap()), text);
    assert_eq!(parse_blocks("a,f").unwrap(), [Part::Attention, Part::Ffn]);
    for bad in ["", " ", "a b", "ends"] {
        assert!(parse_blocks(bad).is_err(), "{bad}");
    }
}
