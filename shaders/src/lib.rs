//! The WGSL text of nemoflash: one constant per file, no dependencies.
//!
//! A kernel's text is made by joining files: some of `lib/`, then the kernel's own file, which has one entry point
//! named like the file. Numbers are put in front as `const` lines.
#![forbid(unsafe_code)]

macro_rules! text {
    ($($name:ident = $file:literal;)*) => {
        $(#[doc = concat!("`", $file, "`")] pub const $name: &str = include_str!(concat!("../", $file));)*
        /// Every file of the crate: (path, text).
        pub const FILES: &[(&str, &str)] = &[$(($file, $name)),*];
    };
}

text! {
    REDUCE = "lib/reduce.wgsl";
    REDUCE_SUBGROUP = "lib/reduce_subgroup.wgsl";
    FOLD = "lib/fold.wgsl";
    FOLD_SUBGROUP = "lib/fold_subgroup.wgsl";
    BATCH = "lib/batch.wgsl";
    WEIGHTS_BF16 = "lib/weights_bf16.wgsl";
    WEIGHTS_F16 = "lib/weights_f16.wgsl";
    WEIGHTS_F32 = "lib/weights_f32.wgsl";
    WEIGHTS_QUANT = "lib/weights_quant.wgsl";
    GRID = "lib/grid.wgsl";
    MATVEC = "lib/matvec.wgsl";
    NORMED = "lib/normed.wgsl";
    UNNORMED = "lib/unnormed.wgsl";
    OUTER = "lib/outer.wgsl";
    TILE = "lib/tile.wgsl";
    SILU = "lib/silu.wgsl";
    SSD = "lib/ssd.wgsl";
    SSD_BLOCK = "lib/ssd_block.wgsl";
    CONV1D = "conv1d.wgsl";
    CONV_TAIL = "conv_tail.wgsl";
    SSD_CHUNK = "ssd_chunk.wgsl";
    SSD_SCORES = "ssd_scores.wgsl";
    SSD_LOCAL = "ssd_local.wgsl";
    SSD_CARRY = "ssd_carry.wgsl";
    SSD_SERIAL = "ssd_serial.wgsl";
    SSD_STEP = "ssd_step.wgsl";
    GATED_NORM = "gated_norm.wgsl";
    EMBED = "embed.wgsl";
    GATHER_LAST = "gather_last.wgsl";
    CHOICE = "lib/choice.wgsl";
    PICK_SCAN = "pick_scan.wgsl";
    PICK = "pick.wgsl";
    ROW_NORMS = "row_norms.wgsl";
    RANDOM_WEIGHTS = "random_weights.wgsl";
    LINES = "lib/lines.wgsl";
    LINES_SUBGROUP = "lib/lines_subgroup.wgsl";
    TEAM = "lib/team.wgsl";
    TEAM_SUBGROUP = "lib/team_subgroup.wgsl";
    PRODUCT = "lib/product.wgsl";
    OPERANDS = "lib/operands.wgsl";
    OPERANDS_F16 = "lib/operands_f16.wgsl";
    ROWS_F32 = "lib/rows_f32.wgsl";
    ROWS_F16 = "lib/rows_f16.wgsl";
    MATMUL = "lib/matmul.wgsl";
    MATMUL_COOP = "lib/matmul_coop.wgsl";
    ATTEND = "lib/attend.wgsl";
    ATTEND_COOP = "lib/attend_coop.wgsl";
    KV_F16 = "lib/kv_f16.wgsl";
    KV_F32 = "lib/kv_f32.wgsl";
    ROTARY = "lib/rotary.wgsl";
    RMS_NORM = "rms_norm.wgsl";
    MATVEC_NORM = "matvec_norm.wgsl";
    MATVEC_ADD = "matvec_add.wgsl";
    MATVEC_NORM_ADD = "matvec_norm_add.wgsl";
    MATVEC_RELU2 = "matvec_relu2.wgsl";
    MATVEC_GATE = "matvec_gate.wgsl";
    LOGITS = "logits.wgsl";
    MATMUL_STORE = "matmul.wgsl";
    MATMUL_ADD = "matmul_add.wgsl";
    MATMUL_LOGITS = "matmul_logits.wgsl";
    FFN_ACT = "ffn_act.wgsl";
    ROPE_KV = "rope_kv.wgsl";
    ATTENTION = "attention.wgsl";
    ATTENTION_STEP = "attention_step.wgsl";
    ATTENTION_JOIN = "attention_join.wgsl";
    DELTA_CHUNKED = "delta_chunked.wgsl";
    DELTA_GATES = "delta_gates.wgsl";
    DELTA_SERIAL = "delta_serial.wgsl";
    DELTA_STEP = "delta_step.wgsl";
    SOLVE = "lib/solve.wgsl";
    DELTA_CARRY = "delta_carry.wgsl";
    DELTA_LOCAL = "delta_local.wgsl";
    DELTA_WY = "delta_wy.wgsl";
}
