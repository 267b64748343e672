#!/usr/bin/env bash
# WGSL has two functions that round to f16, and with Dawn on SwiftShader they give different numbers. pack2x16float keeps
# numbers below the smallest normal one (6.1e-5) and turns 70,000 into NaN; quantizeToF16 turns those small numbers into 0
# and 70,000 into infinity. Neither stops at 65,504. So one cannot stand for the other, and a value must be clamped first.
. "$(dirname "$0")/lib.sh"
webgpu_on_swiftshader
cat >f.mjs <<'E'
import { each } from './webgpu.mjs';
const inputs = [1, 1e-6, 65504, 70000];
console.log('inputs       ', ...inputs);
console.log('pack, unpack ', ...await each('o[k] = unpack2x16float(pack2x16float(vec2f(x, 0.0))).x;', inputs));
console.log('quantizeToF16', ...await each('o[k] = quantizeToF16(x);', inputs));
process.exit(0);
E
run node f.mjs
expect <<'E'
driver: SwiftShader driver 5.0.0
inputs        1 0.000001 65504 70000
pack, unpack  1 0.0000010132789611816406 65504 NaN
quantizeToF16 1 0 65504 Infinity
E
