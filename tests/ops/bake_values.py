"""Prints tests/ops/baked_values.inc: what ONNX Runtime computes for the operators listed here, as rows of a C++ table.
   python tests/ops/bake_values.py > tests/ops/baked_values.inc      (onnx 1.23, onnxruntime 1.32)"""
import textwrap

import numpy as np, onnx, onnxruntime
from onnx import helper

onnxruntime.set_default_logger_severity(4)
NAMES = {'float32': 'float', 'int32': 'int32_t', 'int64': 'int64_t', 'uint8': 'uint8_t', 'int8': 'int8_t', 'uint16': 'uint16_t',
         'int16': 'int16_t', 'bool': 'bool'}


def run(op, inputs, opset, outputs, attributes):
    names = [f'x{i}' for i in range(len(inputs))]
    node = helper.make_node(op, names, [f'y{i}' for i in range(outputs)], **attributes)
    typed = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in zip(names, inputs)]
    graph = helper.make_graph([node], 'g', typed, [onnx.ValueInfoProto(name=f'y{i}') for i in range(outputs)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider']).run(None, dict(zip(names, inputs)))


def number(v):
    if isinstance(v, (bool, np.bool_)): return 'true' if v else 'false'
    if isinstance(v, (int, np.integer)): return str(v)
    text = repr(np.float32(v)).replace('np.float32(', '').rstrip(')')
    return text + ('f' if '.' in text or 'e' in text else '.0f')


def tensor(array):
    array = np.asarray(array)
    shape = ', '.join(map(str, array.shape))
    return f'Tensor::of<{NAMES[str(array.dtype)]}>({{{shape}}}, {{{", ".join(number(v) for v in array.ravel())}}})'


def attribute(name, value):
    if isinstance(value, float): return f'{{"{name}", {number(value)}}}'
    if isinstance(value, int): return f'{{"{name}", int64_t{{{value}}}}}'
    if isinstance(value, str): return f'{{"{name}", std::string("{value}")}}'
    return f'{{"{name}", std::vector<int64_t>{{{", ".join(map(str, value))}}}}}'


def bake(op, *inputs, opset=21, outputs=1, **attributes):
    results = run(op, inputs, opset, outputs, attributes)
    listed = ', '.join(attribute(k, v) for k, v in attributes.items())
    row = f'{{{{"{op}", {{{listed}}}, {opset}, {outputs}}}, {{{", ".join(map(tensor, inputs))}}}, {{{", ".join(map(tensor, results))}}}}},'
    print(textwrap.fill(row, 138, subsequent_indent=' ', break_long_words=False))


x = np.array([-7, -2.5, -1, -0.3, 0.2, 0.7, 1.5, 3, 8], np.float32)
for op, attributes in [('Abs', {}), ('Neg', {}), ('Ceil', {}), ('Floor', {}), ('Round', {}), ('Sign', {}), ('Exp', {}), ('Erf', {}), ('Tanh', {}),
                       ('Sin', {}), ('Cos', {}), ('Atan', {}), ('Sinh', {}), ('Asinh', {}), ('Reciprocal', {}), ('Relu', {}),
                       ('LeakyRelu', {'alpha': 0.1}), ('Elu', {'alpha': 1.5}), ('Selu', {}), ('Celu', {'alpha': 2.0}),
                       ('ThresholdedRelu', {'alpha': 0.5}), ('HardSigmoid', {}), ('HardSwish', {}), ('Sigmoid', {}), ('Softplus', {}),
                       ('Softsign', {}), ('Mish', {}), ('Gelu', {}), ('Gelu', {'approximate': 'tanh'}), ('Shrink', {'lambd': 1.0, 'bias': 0.5})]:
    bake(op, x, **attributes)
for op in ('Sqrt', 'Log', 'Acosh'): bake(op, np.abs(x) + 1)
bake('Clip', x, opset=7, min=-1.0, max=2.0)
bake('Clip', np.array([-5, 0, 9], np.int32), np.array(-2, np.int32), np.array(3, np.int32))
i32 = lambda *v: np.array(v, np.int32)
i64 = lambda *v: np.array(v, np.int64)
f32 = lambda *v: np.array(v, np.float32)
bake('Mod', i32(-7, 7, -7, 7, 6), i32(3, 3, -3, -3, 3))
bake('Mod', i32(-7, 7, -7, 7), i32(3, 3, -3, -3), fmod=1)
bake('Mod', f32(-7.5, 7.5, -7.5), f32(2, -2, -2), fmod=1)
bake('Div', i32(-7, 7, 9), i32(2, -2, 4))
bake('Pow', i32(2, -3, 5), i64(3, 3, 0), opset=15)
bake('Pow', i64(2, 3, 4), f32(0.5, 2, 1.5), opset=15)
bake('Pow', f32(2, 3, 4), f32(0.5, 2, -1.5), opset=15)
bake('Mean', f32(1, 2), f32(3, 5), f32(8, 2), opset=13)
bake('Max', f32(1, 7, 3), np.array(2, np.float32), np.array([[0], [9]], np.float32), opset=13)
bake('BitShift', np.array([16, 4, 255], np.uint8), np.array([1, 2, 3], np.uint8), direction='RIGHT')
bake('BitShift', np.array([16, 4, 255], np.uint8), np.array([1, 2, 3], np.uint8), direction='LEFT')
bake('Where', np.array([[True], [False]]), f32(1, 2, 3), np.array(-1, np.float32))

r = np.random.RandomState(1)
a = (r.randint(-20, 20, (2, 3, 4)) / 4).astype(np.float32)
reductions = ['ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceProd', 'ReduceL1', 'ReduceL2', 'ReduceSumSquare', 'ReduceLogSumExp']
for op in reductions:
    for axes in ([0, 2], [1], [-1]): bake(op, a, i64(*axes), opset=18, keepdims=0)
bake('ReduceLogSum', np.abs(a) + 1, i64(1), opset=18)
bake('ReduceMean', a, opset=11, axes=[1, 2])
bake('ReduceSum', (a * 4).astype(np.int32), i64(0), opset=18)
bake('ReduceMean', (a * 4).astype(np.int32), i64(1), opset=18)
for op in ('Softmax', 'LogSoftmax', 'Hardmax'):
    bake(op, a, opset=13, axis=1)
    bake(op, a, opset=13)
    bake(op, a, opset=11, axis=1)
bake('ArgMax', a, opset=13, axis=1)
bake('ArgMin', a, opset=13, axis=2, keepdims=0)
bake('ArgMax', f32(1, 3, 3, 2), opset=13, select_last_index=1)
bake('CumSum', a, np.array(1, np.int32), opset=14)
bake('CumSum', a, np.array(1, np.int32), opset=14, exclusive=1, reverse=1)

scale4, bias4 = f32(1, 0.5, 2, -1), f32(0, 0.25, -1, 3)
scale3, bias3 = f32(1, 0.5, 2), f32(0.1, -0.2, 0.3)
bake('LayerNormalization', a, scale4, bias4, opset=17, outputs=3, epsilon=1e-3)
bake('LayerNormalization', a, f32(2), opset=17)
bake('BatchNormalization', a, scale3, bias3, f32(0.5, -1, 0), f32(1, 2, 0.25), opset=15)
bake('InstanceNormalization', a, scale3, bias3)
g = (r.randint(-20, 20, (1, 4, 2)) / 4).astype(np.float32)
bake('GroupNormalization', g, scale4, bias4, num_groups=2)
bake('GroupNormalization', g, f32(2, 3), f32(-1, 1), opset=18, num_groups=2)
bake('LRN', g.reshape(1, 4, 2, 1), opset=13, size=3, alpha=0.5, beta=0.75, bias=1.5)
bake('LpNormalization', g, opset=1, axis=1, p=2)
bake('LpNormalization', g, opset=1, axis=1, p=1)

q = f32(-1000, -1.25, -0.75, -0.25, 0, 0.25, 0.75, 1.25, 2.6, 1000)
for dtype, zero in ((np.uint8, 128), (np.int8, -3), (np.uint16, 1000), (np.int16, -5)):
    bake('QuantizeLinear', q, np.array(0.5, np.float32), np.array(zero, dtype))
    bake('DequantizeLinear', np.array([0, 1, 77, 100], dtype), np.array(0.3, np.float32), np.array(zero, dtype))
bake('QuantizeLinear', a, scale3, np.array([1, 2, 3], np.uint8), axis=1)
bake('QuantizeLinear', a, f32(1, 0.5, 2, 0.1), np.array([1, 2, 3, 4], np.int8), axis=-1)
bake('DequantizeLinear', (a * 4).astype(np.int8), scale3, np.array([1, 2, 3], np.int8), axis=1)
bake('DequantizeLinear', (a * 4).astype(np.int32), np.array(0.01, np.float32))
bake('DequantizeLinear', np.arange(10, dtype=np.int8).reshape(2, 5), f32(1, 2, 4, 8, 16, 32).reshape(2, 3), axis=1, block_size=2)
bake('QuantizeLinear', np.arange(10, dtype=np.float32).reshape(5, 2), f32(1, 2, 4, 0.5, 0.1, 0.2).reshape(3, 2), np.zeros((3, 2), np.int8), axis=0, block_size=2)
bake('DynamicQuantizeLinear', q[1:-1], opset=11, outputs=3)
bake('DynamicQuantizeLinear', f32(1, 2.5, 3), opset=11, outputs=3)
