//! A dry run tells what the real engine takes, before any weights are read.
#![forbid(unsafe_code)]

use nemoflash::{ARCHS, Caps, Engine, EngineOptions, Error, Exec, LoadOptions, Loaded, Loader, Quant, Scan};
use nemoflash_tests::{GOLDEN, checkpoint, kinds, load_options};
use pollster::block_on;

const OPTIONS: EngineOptions = EngineOptions {
    slots: 2,
    context: 700,
    kv: nemoflash::Kv::F16,
    scan: Some(Scan::Serial),
    prefill_rows: Some(64),
    clock: None,
};

fn quantised(bits: u32) -> LoadOptions {
    LoadOptions { quantise: Some(Quant::new(bits, 64)), ..Default::default() }
}

fn dry_run(loader: &Loader, options: EngineOptions) -> Engine {
    let dry = block_on(loader.dry_run()).expect("dry run");
    block_on(Engine::new(dry, options)).expect("engine")
}

#[test]
fn it_tells_memory_and_kernels() {
    for (name, _) in GOLDEN {
        let (config, bytes) = checkpoint(name);
        let packed = name == "qwen3-mlx";
        let mut exec = Exec::cpu();
        for options in [LoadOptions::default(), quantised(4)] {
            if packed && options.quantise.is_some() {
                continue; // it is quantised already
            }
            let loaded = load_options(exec, &config, std::slice::from_ref(&bytes), options, &mut || usize::MAX);
            let real = block_on(Engine::new(loaded.expect("model"), OPTIONS)).expect("engine");
            let mut loader = Loader::with_options(Exec::dry(&Caps::CPU), &config, &[None], options).expect("loader");
            let before = dry_run(&loader, OPTIONS).explain();
            let length = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("length"));
            for part in [&bytes[..8], &bytes[8..length as usize]] {
                block_on(loader.push(part)).expect("header");
            }
            let dry = dry_run(&loader, OPTIONS);
            assert_eq!(dry.explain().device_bytes, real.explain().device_bytes, "{name}: with the header");
            // Which matrices of a quantised folder are packed stands in the header alone.
            let (guess, bytes) = (before.device_bytes, real.explain().device_bytes);
            assert!(guess == bytes || packed && guess.weights > bytes.weights, "{name}: {guess:?}, {bytes:?}");
            let Exec::Dry(device) = dry.exec() else { panic!("it is a dry run") };
            for step in real.decode_plans().iter().flat_map(|plan| &plan.steps) {
                let kernel = (step.op.kernel(), step.op.consts(&Caps::CPU));
                assert!(device.kernels().contains(&kernel), "{name}: {} is not announced", kernel.0.name);
            }
            let first = device.kernels().iter().position(|(kernel, _)| kernel.name == "logits").expect("logits");
            assert!(first > 0 && first < device.kernels().len() - 1, "{name}: in the order of first use");
            exec = real.into_exec();
        }
    }
}

/// Other options give other answers, and limits are held.
#[test]
fn it_depends_on_what_is_asked() {
    let (config, _) = checkpoint("mixed");
    let loader = |options| Loader::with_options(Exec::dry(&Caps::CPU), &config, &[None], options).expect("loader");
    let plain = dry_run(&loader(LoadOptions::default()), OPTIONS).explain().device_bytes;
    let four = dry_run(&loader(quantised(4)), OPTIONS).explain().device_bytes;
    assert!(four.weights < plain.weights && four.arena == plain.arena, "{four:?}, {plain:?}");
    let long = dry_run(&loader(LoadOptions::default()), EngineOptions { context: 1400, ..OPTIONS });
    assert!(long.explain().device_bytes.arena > plain.arena);
    let names = |engine: &Engine| {
        let Exec::Dry(device) = engine.exec() else { panic!("it is a dry run") };
        device.kernels().iter().map(|(kernel, _)| kernel.name).collect::<Vec<_>>()
    };
    let chunked = dry_run(&loader(LoadOptions::default()), EngineOptions { scan: Some(Scan::Chunked), ..OPTIONS });
    assert!(names(&chunked).contains(&"ssd_chunk") && !names(&long).contains(&"ssd_chunk"), "{:?}", names(&chunked));
    let small = Caps { max_binding: 1 << 14, ..Caps::CPU };
    let cut =
        block_on(Loaded::dry_run(&small, &config, &[], LoadOptions::default())).expect("matrices are cut into parts");
    let refused = block_on(Engine::new(cut, OPTIONS));
    assert!(matches!(refused, Err(Error::Limit { .. })), "{refused:?}");
}

/// Every published shape runs on every kind of device: its kernels' texts are valid there, and it has the published size.
#[test]
fn every_published_shape() {
    let millions = [1000, 2700, 600, 1700, 490, 1540, 1240, 3200, 1700];
    for ((name, config), millions) in ARCHS.into_iter().zip(millions) {
        for (kind, caps) in kinds() {
            let dry = block_on(Loaded::dry_run(&caps, config.as_bytes(), &[], LoadOptions::default()))
                .unwrap_or_else(|e| panic!("{name} on {kind}: {e}"));
            let engine = block_on(Engine::new(dry, OPTIONS)).unwrap_or_else(|e| panic!("{name} on {kind}: {e}"));
            let parameters = engine.explain().device_bytes.weights as f64 / 2.0 / 1e6;
            assert!((parameters / f64::from(millions) - 1.0).abs() < 0.1, "{name}: {parameters} million parameters");
            let Exec::Dry(device) = engine.exec() else { panic!("it is a dry run") };
            for (kernel, consts) in device.kernels() {
                let text = kernel.source(consts, &caps);
                naga::front::wgsl::parse_str(&text)
                    .unwrap_or_else(|e| panic!("{name} on {kind}: {}: {e}", kernel.name));
            }
        }
    }
}
