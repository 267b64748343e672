//! Makes workgroup memory begin with other values than zero, as it may on a GPU, because pipelines are made without clearing
//! it.

use naga::{ArraySize, ScalarKind, Type, TypeInner, UniqueArena};

/// Adds lines to the start of a kernel's entry point that fill all of its workgroup memory with NaN and with integers out of
/// every range. A text that is not valid is returned unchanged.
///
/// # Panics
/// If a workgroup variable has a type that this does not know.
pub fn spoil(text: String) -> String {
    let Ok(module) = naga::front::wgsl::parse_str(&text) else { return text };
    let mut lines = String::new();
    for (_, variable) in module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup) {
        let name = variable.name.as_deref().expect("a variable has a name");
        lines.push_str(&fill(&module.types, &module.types[variable.ty], name, 0));
    }
    if lines.is_empty() {
        return text;
    }
    // The entry point is the only function with attributes, and its parameters contain no brace.
    let entry = text.find("@compute").expect("a kernel has an entry point");
    let body = entry + text[entry..].find('{').expect("a function has a body") + 1;
    let (head, rest) = text.split_at(body);
    let nan = "var spoil_nan = 0x7fc00000u;";
    format!("{head}\n{nan}\nif local == 0u {{\n{lines}}}\nworkgroupBarrier();\n{rest}")
}

/// WGSL that fills the variable or the element at `place`.
fn fill(types: &UniqueArena<Type>, ty: &Type, place: &str, depth: u32) -> String {
    let scalar = |scalar: naga::Scalar| match (scalar.kind, scalar.width) {
        (ScalarKind::Float, 4) => "bitcast<f32>(spoil_nan)",
        (ScalarKind::Float, 2) => "f16(bitcast<f32>(spoil_nan))",
        (ScalarKind::Uint, 4) => "0xdeadbeefu",
        (ScalarKind::Sint, 4) => "-0x5eadbeef",
        _ => panic!("{place}: {scalar:?}"),
    };
    match &ty.inner {
        TypeInner::Scalar(s) => format!("{place} = {};\n", scalar(*s)),
        TypeInner::Vector { size, scalar: s } => {
            let values = vec![scalar(*s); *size as usize].join(", ");
            format!("{place} = vec{}({values});\n", *size as usize)
        }
        TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
            let i = format!("spoil_{depth}");
            let inner = fill(types, &types[*base], &format!("{place}[{i}]"), depth + 1);
            format!("for (var {i} = 0u; {i} < {count}u; {i}++) {{\n{inner}}}\n")
        }
        TypeInner::Struct { members, .. } => {
            let member = |m: &naga::StructMember| {
                let name = m.name.as_deref().expect("a member has a name");
                fill(types, &types[m.ty], &format!("{place}.{name}"), depth)
            };
            members.iter().map(member).collect()
        }
        other => panic!("{place}: {other:?}"),
    }
}
