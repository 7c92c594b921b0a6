//! ONNX models that fail, panic or do not end, built from the operators of the format.
//!
//! Each takes `pixels` and gives a `class` of its own, so that a test can tell which model has answered. A bright input,
//! with a pixel of 16, does the harm.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use prost::Message;

/// What a model does beside its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Nothing,
    /// It fails with an error when it runs on a bright input.
    Fails,
    /// It panics when it runs on a bright input: a tensor would have more elements than there are addresses.
    Panics,
    /// It runs for hours on a bright input.
    RunsOn,
    /// It fails when it runs on anything.
    FailsAtOnce,
    /// It panics when it is loaded.
    PanicsAtOnce,
    /// Each run, and so the first one, takes hours.
    NeverLoads,
    /// It gives one row, however many inputs there are.
    OneRow,
    /// Its probabilities are of five classes.
    FiveClasses,
}

/// A model whose answer is always the digit `class`.
pub(crate) fn model(class: usize, does: Does) -> Vec<u8> {
    padded(class, does, 0)
}

/// The same, in a file whose two halves, `padding` numbers apart, give the class a half of its probability each.
pub(crate) fn padded(class: usize, does: Does, padding: usize) -> Vec<u8> {
    let mut graph = Graph::default();
    graph.harm(does);
    graph.answer(class, does, padding);
    let opset = OperatorSet { domain: String::new(), version: 13 };
    Model { ir_version: 8, graph: Some(graph), opset_import: vec![opset] }.encode_to_vec()
}

const FLOAT: i32 = 1;
const INT64: i32 = 7;

impl Graph {
    /// `harm`, a number that is added to the answer. `bright` is 1 for a bright input, and 0 otherwise.
    fn harm(&mut self, does: Does) {
        self.floats("brightest", &[], &[16.0]);
        self.node("ReduceMax", &["pixels"], "max", vec![int("keepdims", 0)]);
        self.node("Div", &["max", "brightest"], "part", vec![]);
        self.node("Floor", &["part"], "bright", vec![]);
        match does {
            Does::Fails | Does::FailsAtOnce => {
                self.scaled(100.0);
                self.floats(
                    "one",
                    &[if does == Does::Fails { 1 } else { 0 }],
                    &vec![0.0; usize::from(does == Does::Fails)],
                );
                self.node("Gather", &["one", "number"], "harm", vec![]);
            }
            Does::Panics => {
                self.scaled(3e9);
                self.ints("front", &[1], &[0]);
                self.node("Unsqueeze", &["number", "front"], "side", vec![]);
                self.node("Concat", &["side", "side"], "shape", vec![int("axis", 0)]);
                self.sum_of_shape();
            }
            Does::PanicsAtOnce => {
                self.ints("shape", &[2], &[i64::from(i32::MAX); 2]);
                self.sum_of_shape();
            }
            Does::RunsOn | Does::NeverLoads => {
                self.scaled(1e9);
                // Constants would be folded when the file is read, on threads that all models share.
                self.ints("always", &[], &[if does == Does::NeverLoads { 1_000_000_000 } else { 0 }]);
                self.node("Add", &["number", "always"], "steps", vec![]);
                self.floats("zero", &[], &[0.0]);
                let mut body = Self { name: "body".to_owned(), ..Self::default() };
                body.input = vec![value("step", INT64), value("goes", INT64), value("before", FLOAT)];
                body.node("Identity", &["goes"], "goes_on", vec![]);
                body.node("Identity", &["before"], "after", vec![]);
                body.output = vec![value("goes_on", INT64), value("after", FLOAT)];
                let body = Attribute { name: "body".to_owned(), g: Some(body), r#type: 5, ..Attribute::default() };
                self.node("Loop", &["steps", "", "zero"], "harm", vec![body]);
            }
            Does::Nothing | Does::OneRow | Does::FiveClasses => self.floats("harm", &[], &[0.0]),
        }
    }

    /// `number`: that many for a bright input, and 0 otherwise.
    fn scaled(&mut self, by: f32) {
        self.floats("scale", &[], &[by]);
        self.node("Mul", &["bright", "scale"], "scaled", vec![]);
        self.node("Cast", &["scaled"], "number", vec![int("to", INT64.into())]);
    }

    fn sum_of_shape(&mut self) {
        self.node("ConstantOfShape", &["shape"], "large", vec![]);
        self.node("ReduceSum", &["large"], "harm", vec![int("keepdims", 0)]);
    }

    fn answer(&mut self, class: usize, does: Does, padding: usize) {
        let classes = if does == Does::FiveClasses { 5 } else { 10 };
        let rows: &str = if does == Does::OneRow { "zero_row" } else { "zeros" };
        self.floats("nothing", &[64, classes], &vec![0.0; 64 * classes as usize]);
        self.node("MatMul", &["pixels", "nothing"], "zeros", vec![]);
        self.ints("rows", &[1], &[0]);
        self.node("ReduceMax", &["zeros"], "zero_row", vec![ints("axes", &[0]), int("keepdims", 1)]);
        let mut of_class = vec![0.0; classes as usize];
        of_class[class % classes as usize] = 0.5;
        self.floats("one_half", &[1, classes], &of_class);
        self.floats("padding", &[padding as i64], &vec![0.0; padding]);
        self.floats("other_half", &[1, classes], &of_class);
        self.node("Add", &[rows, "one_half"], "half", vec![]);
        self.node("Add", &["half", "other_half"], "answer", vec![]);
        self.node("Add", &["answer", "harm"], "probabilities", vec![]);
        self.node("Identity", &["probabilities"], "embedding", vec![]);
        self.name = "answer".to_owned();
        self.input = vec![value("pixels", FLOAT)];
        self.output = vec![value("embedding", FLOAT), value("probabilities", FLOAT)];
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) {
        let input = inputs.iter().map(|&name| name.to_owned()).collect();
        let (output, name, op_type) = (vec![output.to_owned()], output.to_owned(), op.to_owned());
        self.node.push(Node { input, output, name, op_type, attribute });
    }

    fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer.push(Tensor { dims: dims.to_vec(), data_type: FLOAT, name: name.to_owned(), raw_data });
    }

    fn ints(&mut self, name: &str, dims: &[i64], values: &[i64]) {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer.push(Tensor { dims: dims.to_vec(), data_type: INT64, name: name.to_owned(), raw_data });
    }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: value, r#type: 2, ..Attribute::default() }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.to_owned(), ints: values.to_vec(), r#type: 7, ..Attribute::default() }
}

fn value(name: &str, elem_type: i32) -> Value {
    Value { name: name.to_owned(), r#type: Some(Type { tensor_type: Some(TensorType { elem_type }) }) }
}

// The messages of `onnx.proto`, as far as they are needed.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(message, optional, tag = "6")]
    g: Option<Graph>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
}
