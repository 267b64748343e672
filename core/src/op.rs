//! An operator: the numbers of its kernel, its grid, its CPU twin and its example sizes.

use crate::batch::{Batch, Size};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel};

/// Declares an operator's [`Numbers`]. First come the `u32` and `f32` that equal the `Numbers` struct of its kernel
/// word for word. After `host` come fields of any type that the kernel does not read. Tests compare names and offsets
/// with the WGSL, and fail if the kernel does not read one of its numbers.
#[macro_export]
#[doc(hidden)]
macro_rules! numbers {
    (
        $(#[$doc:meta])*
        pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)* }
        $(host { $($(#[$hdoc:meta])* pub $host:ident: $hty:ty,)* })?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* $($($(#[$hdoc])* pub $host: $hty,)*)? }
        impl $crate::op::Numbers for $name {
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($ty))),*];
            fn words(&self) -> Vec<u32> {
                vec![$(bytemuck::cast(self.$field)),*]
            }
        }
    };
}

/// The numbers of an operator. Those that the kernel reads come first, in the order of the uniform struct. Those under
/// `host` are only needed on the host, for the lengths of buffers and the choice of the kernel's text.
pub trait Numbers: Copy {
    /// Name and type of each number that the kernel reads, `u32` or `f32`.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// The numbers in the layout of the uniform buffer.
    fn words(&self) -> Vec<u32>;
}

/// An example on which an operator is tested and timed.
#[derive(Clone, Debug)]
pub struct Example<O> {
    /// The operator.
    pub op: O,
    /// The rows it runs on.
    pub batch: Batch,
}

impl<O> Example<O> {
    /// An example over `rows` independent rows: one segment of slot 0 from position 0.
    pub fn rows(op: O, rows: u32) -> Self {
        Self::segments(op, &[(0, 0, rows)])
    }

    /// An example over segments (slot, first position, rows). Tokens count up from the row's index.
    pub fn segments(op: O, segments: &[(u32, u32, u32)]) -> Self {
        let mut batch = Batch::default();
        for &(slot, position, rows) in segments {
            let first = batch.rows.len() as u32;
            batch.push(slot, position, &(first..first + rows).collect::<Vec<_>>(), true);
        }
        Example { op, batch }
    }
}

/// An operator. The type holds only its numbers.
pub trait Op: Numbers + std::fmt::Debug + Send + Sync + 'static {
    /// The kernel that computes it.
    fn kernel(&self) -> Kernel;

    /// Constants of the kernel's text, workgroup size first.
    fn consts(&self, caps: &Caps) -> Vec<Const>;

    /// Whether only devices with cooperative matrices can compute it. Steps of other devices do not have it.
    fn coop_only(&self) -> bool {
        false
    }

    /// The least number of elements that each binding must have.
    fn lens(&self) -> Vec<u64>;

    /// The workgroups for a step of this size.
    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3];

    /// The CPU twin: computes the same results by plain loops. `bufs` are the words of the bindings, in order.
    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]);

    /// The sizes on which the operator is tested and timed, odd ones included.
    fn examples() -> Vec<Example<Self>>;

    /// The words that a test puts into binding `bind` of an example. `None` if random numbers of the binding's type
    /// will do. `uniform` gives numbers in 0..1.
    fn input(&self, _bind: usize, _uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        None
    }

    /// Bytes that a step of this size must move at least. `None` if these are all bytes of `lens`.
    fn bytes(&self, _size: Size) -> Option<u64> {
        None
    }

    /// Number of multiplications plus additions in a step of this size. Only operators whose speed they limit at large
    /// sizes give it.
    fn flops(&self, _size: Size) -> Option<u64> {
        None
    }
}

/// [`Op`] as a trait object, as plans hold it.
pub trait AnyOp: std::fmt::Debug + Send + Sync {
    /// See [`Op::kernel`].
    fn kernel(&self) -> Kernel;
    /// See [`Op::consts`].
    fn consts(&self, caps: &Caps) -> Vec<Const>;
    /// See [`Op::coop_only`].
    fn coop_only(&self) -> bool;
    /// See [`Op::lens`].
    fn lens(&self) -> Vec<u64>;
    /// See [`Op::grid`].
    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3];
    /// See [`Op::cpu`].
    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]);
    /// See [`Op::bytes`].
    fn bytes(&self, size: Size) -> Option<u64>;
    /// See [`Op::flops`].
    fn flops(&self, size: Size) -> Option<u64>;
    /// See [`Numbers::words`].
    fn numbers(&self) -> Vec<u32>;
    /// Names and types of the numbers.
    fn fields(&self) -> &'static [(&'static str, &'static str)];
    /// See [`Op::input`].
    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>>;
}

impl<O: Op> AnyOp for O {
    fn kernel(&self) -> Kernel {
        Op::kernel(self)
    }
    fn consts(&self, caps: &Caps) -> Vec<Const> {
        Op::consts(self, caps)
    }
    fn coop_only(&self) -> bool {
        Op::coop_only(self)
    }
    fn lens(&self) -> Vec<u64> {
        Op::lens(self)
    }
    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        Op::grid(self, size, caps)
    }
    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        Op::cpu(self, size, bufs)
    }
    fn bytes(&self, size: Size) -> Option<u64> {
        Op::bytes(self, size)
    }
    fn flops(&self, size: Size) -> Option<u64> {
        Op::flops(self, size)
    }
    fn numbers(&self) -> Vec<u32> {
        self.words()
    }
    fn fields(&self) -> &'static [(&'static str, &'static str)] {
        O::FIELDS
    }
    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        Op::input(self, bind, uniform)
    }
}

/// The words of a CPU twin's binding, read as `f32`.
pub fn floats(words: &[u32]) -> &[f32] {
    bytemuck::cast_slice(words)
}

/// The words of a CPU twin's binding as writable `f32`.
pub fn floats_mut(words: &mut [u32]) -> &mut [f32] {
    bytemuck::cast_slice_mut(words)
}
