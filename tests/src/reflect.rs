//! Compares a kernel's text with what the Rust side says about the kernel.

use crate::shader::Shader;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, ShaderStage, StorageAccess, TypeInner};
use nemoflash::Elem;
use nemoflash::batch::BATCH_WORDS;
use nemoflash::kernel::{Access, Bind};

/// Parses and validates a kernel's text for its device.
///
/// # Errors
/// naga's message, with the place in the text.
pub fn parse(shader: &Shader) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(&shader.text).map_err(|e| e.emit_to_string(&shader.text))?;
    // Every WebGPU device packs and unpacks halves; not all compute with them.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, shader.caps.subgroup.is_some());
    capabilities.set(Capabilities::SHADER_FLOAT16, shader.caps.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, shader.caps.coopmat);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|e| e.emit_to_string(&shader.text))?;
    Ok((module, info))
}

/// Compares entry point, numbers, bindings and sizes with the kernel, and the sizes with the limits of the device.
///
/// # Errors
/// The first difference.
pub fn reflect(shader: &Shader, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let kernel = &shader.kernel;
    let [entry] = &module.entry_points[..] else {
        return Err(format!("{} entry points, not one", module.entry_points.len()));
    };
    same("entry point", entry.name.as_str(), kernel.name)?;
    same("stage", entry.stage, ShaderStage::Compute)?;
    let file = format!("{}.wgsl", kernel.name);
    let text = nemoflash_shaders::FILES.iter().find(|(name, _)| *name == file);
    let (_, text) = text.ok_or_else(|| format!("no file {file} is listed in the shaders crate"))?;
    if !kernel.parts.contains(&nemoflash::kernel::Source::Text(text)) {
        return Err(format!("{file} is not among the kernel's parts"));
    }
    let invocations: u32 = entry.workgroup_size.iter().product();
    at_most("invocations", invocations, shader.caps.max_invocations)?;
    let (mut workgroup, mut bound) = (0, 0);
    for (handle, global) in module.global_variables.iter() {
        let name = global.name.as_deref().unwrap_or("?");
        match global.space {
            // WebGPU counts only the variables that the entry point uses.
            AddressSpace::WorkGroup if info.get_entry_point(0)[handle].is_empty() => {}
            AddressSpace::WorkGroup => workgroup += module.types[global.ty].inner.size(module.to_ctx()),
            AddressSpace::Private => {}
            AddressSpace::Uniform | AddressSpace::Storage { .. } => {
                let at = global.binding.ok_or_else(|| format!("{name} has no binding"))?;
                same(&format!("group of {name}"), at.group, 0)?;
                match (at.binding, global.space) {
                    (0, AddressSpace::Uniform) => {
                        same("name of the numbers", name, "n")?;
                        numbers(shader, module, global.ty)?;
                    }
                    (i, AddressSpace::Storage { access }) if i > 0 => {
                        let bind = kernel.binds.get(i as usize - 1);
                        let bind = bind.ok_or_else(|| format!("binding {i}, {name}, is not in the kernel's list"))?;
                        storage(bind, name, access, &leaves(module, global.ty))?;
                    }
                    (i, space) => return Err(format!("{name}: binding {i} in {space:?}")),
                }
                bound += 1;
            }
            other => return Err(format!("{name} is in {other:?}")),
        }
    }
    same("bindings, numbers included", bound, kernel.binds.len() + 1)?;
    at_most("storage buffers", kernel.binds.len() as u32, shader.caps.max_storage_buffers)?;
    at_most("bytes of workgroup memory", workgroup, shader.caps.workgroup_bytes)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?} in WGSL, {want:?} in Rust")) }
}

fn at_most(what: &str, got: u32, limit: u32) -> Result<(), String> {
    if got <= limit { Ok(()) } else { Err(format!("{got} {what}, more than the {limit} of the device")) }
}

fn numbers(shader: &Shader, module: &Module, ty: naga::Handle<naga::Type>) -> Result<(), String> {
    let TypeInner::Struct { members, span } = &module.types[ty].inner else {
        return Err("the numbers are not a struct".into());
    };
    same("type of the numbers", module.types[ty].name.as_deref(), Some("Numbers"))?;
    let found: Vec<_> = members
        .iter()
        .map(|member| {
            let kind = match module.types[member.ty].inner {
                TypeInner::Scalar(naga::Scalar::U32) => "u32",
                TypeInner::Scalar(naga::Scalar::F32) => "f32",
                _ => "neither u32 nor f32",
            };
            (member.name.as_deref().unwrap_or("?"), kind, member.offset)
        })
        .collect();
    let wanted: Vec<_> = shader.fields.iter().zip(0..).map(|((name, kind), i)| (*name, *kind, 4 * i)).collect();
    same("numbers", found, wanted)?;
    same("bytes of the numbers", *span as usize, 4 * shader.fields.len())
}

/// The kinds of numbers in a type, and its size in bytes if that is fixed.
struct Leaves {
    kinds: Vec<(ScalarKind, u8)>,
    fixed: Option<u32>,
}

fn leaves(module: &Module, ty: naga::Handle<naga::Type>) -> Leaves {
    fn collect(module: &Module, ty: naga::Handle<naga::Type>, kinds: &mut Vec<(ScalarKind, u8)>) {
        match &module.types[ty].inner {
            TypeInner::Scalar(s) | TypeInner::Atomic(s) | TypeInner::Vector { scalar: s, .. } => {
                kinds.push((s.kind, s.width));
            }
            TypeInner::Array { base, .. } => collect(module, *base, kinds),
            TypeInner::Struct { members, .. } => members.iter().for_each(|m| collect(module, m.ty, kinds)),
            _ => kinds.push((ScalarKind::Bool, 0)),
        }
    }
    let mut kinds = vec![];
    collect(module, ty, &mut kinds);
    let inner = &module.types[ty].inner;
    let fixed = (!inner.is_dynamically_sized(&module.types)).then(|| inner.size(module.to_ctx()));
    Leaves { kinds, fixed }
}

fn storage(bind: &Bind, name: &str, access: StorageAccess, leaves: &Leaves) -> Result<(), String> {
    same("binding", name, bind.name)?;
    let writes = access.contains(StorageAccess::STORE);
    same(&format!("{name} is written"), writes, bind.access != Access::Read)?;
    let allowed: &[(ScalarKind, u8)] = match bind.elem {
        Elem::F32 => &[(ScalarKind::Float, 4)],
        Elem::U32 | Elem::Weights => &[(ScalarKind::Uint, 4)],
        Elem::F16 => &[(ScalarKind::Uint, 4), (ScalarKind::Float, 2)],
    };
    if let Some(other) = leaves.kinds.iter().find(|kind| !allowed.contains(kind)) {
        return Err(format!("{name} holds {other:?} in WGSL, {:?} in Rust", bind.elem));
    }
    match (name, leaves.fixed) {
        ("batch", size) => same("bytes of batch", size, Some(BATCH_WORDS as u32 * 4)),
        (_, Some(size)) => Err(format!("{name} has a fixed size of {size} bytes")),
        (_, None) => Ok(()),
    }
}
