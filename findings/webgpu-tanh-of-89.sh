#!/usr/bin/env bash
# With Dawn on SwiftShader, tanh(89) is not 1 but NaN: both exponentials of sinh / cosh overflow, and the language lets
# tanh be as inaccurate as that quotient. At 44 it is still 1. GELU by tanh goes past 89 for an input of 14.
# exp itself overflows to infinity as one would have guessed, so 1 - 2 / (exp(2 x) + 1) is 1.
. "$(dirname "$0")/lib.sh"
webgpu_on_swiftshader
cat >f.mjs <<'E'
import { each } from './webgpu.mjs';
const inputs = [44, 88, 89, -89];
console.log('inputs                   ', ...inputs);
console.log('tanh(x)                  ', ...await each('o[k] = tanh(x);', inputs));
console.log('1 - 2 / (exp(2 x) + 1)   ', ...await each('o[k] = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);', inputs));
process.exit(0);
E
run node f.mjs
expect <<'E'
driver: SwiftShader driver 5.0.0
inputs                    44 88 89 -89
tanh(x)                   1 1 NaN NaN
1 - 2 / (exp(2 x) + 1)    1 1 1 -1
E
