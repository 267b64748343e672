//! Dry runs: a device that does not exist. It records which kernels plans use, allocates nothing and computes nothing.
//! An engine on it tells what the same engine would need on a real device, before any weights are loaded.

use crate::buf::Buf;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel};
use crate::op::AnyOp;
use crate::plan::Plan;

/// A device for dry runs, with the limits and features of the device that it stands for.
#[derive(Debug)]
pub struct Dry {
    caps: Caps,
    /// Number of buffers that were asked for.
    buffers: u32,
    kernels: Vec<(Kernel, Vec<Const>)>,
}

impl Dry {
    pub(crate) fn new(caps: &Caps) -> Dry {
        Dry { caps: caps.clone(), buffers: 0, kernels: vec![] }
    }

    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The kernels that plans use, each once, in the order of first use.
    pub fn kernels(&self) -> &[(Kernel, Vec<Const>)] {
        &self.kernels
    }

    pub(crate) fn alloc(&mut self) -> u32 {
        self.buffers += 1;
        self.buffers - 1
    }

    pub(crate) fn prepare(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.kernel(&*step.op);
        }
    }

    fn kernel(&mut self, op: &dyn AnyOp) {
        let entry = (op.kernel(), op.consts(&self.caps));
        if !self.kernels.contains(&entry) {
            self.kernels.push(entry);
        }
    }

    /// The words that a read would return: zeros.
    pub(crate) fn read(read: Option<(Buf, u64)>) -> Vec<u32> {
        read.map_or(vec![], |(_, words)| vec![0; words as usize])
    }
}
