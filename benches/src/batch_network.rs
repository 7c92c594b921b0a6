//! A network of some size as an ONNX file: a perceptron of four layers. Its weights are drawn by chance, always the same
//! ones, so its scores mean nothing, but it computes as much as one that was trained.

use std::cell::RefCell;

use rten_onnx::onnx::{
    DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, TypeProtoTensor, ValueInfoProto,
};

use crate::overload::Chance;

/// The values of an item.
pub const FEATURES: usize = 256;

/// The values between the layers of a network with 2.4 million weights.
pub const WIDTH: usize = 1024;

/// The same of one with 9 million weights.
pub const LARGE_WIDTH: usize = 2048;

const SCORES: usize = 16;

pub const INPUT: &str = "features";
pub const OUTPUT: &str = "scores";

/// The bytes of the file of a network with so many values between its layers.
pub fn onnx(width: usize) -> Vec<u8> {
    let widths = [FEATURES, width, width, width, SCORES];
    let (mut chance, layers) = (Chance::new(1), widths.len() - 1);
    let mut graph = GraphProto {
        input: vec![rows_of(INPUT, FEATURES)],
        output: vec![rows_of(OUTPUT, SCORES)],
        ..GraphProto::default()
    };
    let mut input = INPUT.to_owned();
    for layer in 0..layers {
        let (from, to) = (widths[layer], widths[layer + 1]);
        let (weights, bias, sum) = (format!("weights{layer}"), format!("bias{layer}"), format!("sum{layer}"));
        graph.initializer.push(tensor(&weights, &[from, to], &mut chance));
        graph.initializer.push(tensor(&bias, &[to], &mut chance));
        let last = layer + 1 == layers;
        let output = if last { OUTPUT.to_owned() } else { format!("hidden{layer}") };
        graph.node.push(node("Gemm", [input, weights, bias].into(), &sum));
        graph.node.push(node(if last { "Sigmoid" } else { "Relu" }, vec![sum], &output));
        input = output;
    }
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let model =
        ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    model.write_buf().expect("a vector takes every byte")
}

fn node(operator: &str, input: Vec<String>, output: &str) -> NodeProto {
    NodeProto {
        name: Some(output.to_owned()),
        op_type: Some(operator.to_owned()),
        input,
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "any weight is right")]
fn tensor(name: &str, shape: &[usize], chance: &mut Chance) -> TensorProto {
    let length: usize = shape.iter().product();
    // A mean of 0 and a deviation at which neither the values nor their gradients vanish.
    let deviation = 1.0 / (shape[0] as f64).sqrt();
    let values = (0..length).flat_map(|_| (((chance.exponential() - 1.0) * deviation) as f32).to_le_bytes());
    TensorProto {
        name: Some(name.to_owned()),
        dims: shape.iter().map(|length| size(*length)).collect(),
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(values.collect())),
        ..TensorProto::default()
    }
}

/// Any number of rows of so many values.
fn rows_of(name: &str, width: usize) -> ValueInfoProto {
    let rows = Dimension { dim_value: None, dim_param: Some("n".to_owned()) };
    let columns = Dimension { dim_value: Some(size(width)), dim_param: None };
    let shape = TensorShapeProto { dim: vec![rows, columns] };
    let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: Some(shape) };
    let kind = TypeProto { tensor_type: Some(tensor), sequence: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind) }
}

fn size(length: usize) -> i64 {
    i64::try_from(length).expect("a layer is small")
}
