//! `nemoflash devices`: lists the devices that could run a model here.

use crate::args::Common;
use crate::open::INSTALL;
use crate::report::Exit;
use crate::{quiet, terminal};
use anyhow::Result;
use nemoflash::{AdapterInfo, Gpu};
use serde_json::json;

const HEAD: [&str; 9] = ["#", "NAME", "BACKEND", "KIND", "F16", "SUBGROUPS", "COOPMAT", "LARGEST BINDING", "DRIVER"];

/// Runs the command. It is not an error if there is no adapter, because the CPU is always there.
///
/// # Errors
/// If the output cannot be written.
pub async fn run(common: &Common) -> Result<Exit> {
    let adapters = quiet::during(common.verbose, Gpu::adapters(common.backend().as_deref())).await?;
    if common.json {
        let list: Vec<_> = adapters.iter().map(object).collect();
        let all = json!({ "adapters": list, "cpu": { "name": "CPU", "threads": 1 } });
        terminal::print(&format!("{all:#}\n"))?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(adapters.iter().map(row));
    let cpu = ["-", "CPU", "-", "cpu", "-", "-", "-", "-", "none needed: --device cpu"];
    rows.push(cpu.map(str::to_owned));
    terminal::print(&table(&rows))?;
    if adapters.is_empty() {
        terminal::note(&format!("note: no usable GPU adapter. {INSTALL}"));
    }
    Ok(Exit::Done)
}

fn row(info: &AdapterInfo) -> [String; 9] {
    let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
    let subgroups = match info.subgroups {
        None => "no".to_owned(),
        Some((least, most)) if least == most => least.to_string(),
        Some((least, most)) => format!("{least} to {most}"),
    };
    [
        info.index.to_string(),
        info.name.clone(),
        info.backend.clone(),
        info.kind.to_owned(),
        yes(info.f16),
        subgroups,
        yes(info.coopmat),
        format!("{} MiB", info.max_binding >> 20),
        info.driver.clone(),
    ]
}

/// An adapter for `--json`.
pub fn object(info: &AdapterInfo) -> serde_json::Value {
    json!({
        "index": info.index,
        "name": info.name,
        "backend": info.backend,
        "kind": info.kind,
        "driver": info.driver,
        "f16": info.f16,
        "subgroups": info.subgroups.map(|(least, most)| json!({ "min": least, "max": most })),
        "coopmat": info.coopmat,
        "timestamps": info.timestamps,
        "max_binding_bytes": info.max_binding,
        "max_buffer_bytes": info.max_buffer,
    })
}

/// A table whose columns are as wide as their widest cell. Lines have no spaces at the end.
pub fn table(rows: &[impl AsRef<[String]>]) -> String {
    let mut widths = vec![0; rows.first().map_or(0, |row| row.as_ref().len())];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(|row| line(row.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb"], ["ccc", ""], ["ä", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(super::table(&rows), "a    bb\nccc\nä    d\n");
    }
}
