"""Trains the digits model of the example server and writes it as ONNX, with held-out samples to check it by.

    pip install -r requirements.txt
    python train.py

A small network learns scikit-learn's digits (8 x 8 pixels, each 0 to 16). `digits.onnx` has the input `pixels` [n, 64] and two
outputs: `embedding` [n, 32], the last hidden layer scaled to length 1, and `probabilities` [n, 10]. `heldout.json` holds
the samples that the network has not seen, their labels, and how many of them ONNX' reference evaluator gets right.
"""

import json
from pathlib import Path

import numpy
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20
HIDDEN, EMBEDDING = 64, 32
FOLDER = Path(__file__).parent


def train():
    pixels, labels = load_digits(return_X_y=True)
    seen, heldout, seen_labels, heldout_labels = train_test_split(
        pixels, labels, test_size=400, random_state=SEED, stratify=labels
    )
    network = MLPClassifier((HIDDEN, EMBEDDING), alpha=0.01, max_iter=500, random_state=SEED)
    network.fit(seen / 16, seen_labels)
    return network, heldout, heldout_labels


def to_onnx(network):
    constants = {"scale": numpy.array([16]), "shortest": numpy.array([1e-12])}
    for layer, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_)):
        constants |= {f"weights{layer}": weights, f"bias{layer}": bias}
    nodes = [
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weights0", "bias0"], ["sum0"]),
        helper.make_node("Relu", ["sum0"], ["hidden0"]),
        helper.make_node("Gemm", ["hidden0", "weights1", "bias1"], ["sum1"]),
        helper.make_node("Relu", ["sum1"], ["hidden1"]),
        helper.make_node("Gemm", ["hidden1", "weights2", "bias2"], ["sum2"]),
        helper.make_node("Softmax", ["sum2"], ["probabilities"], axis=1),
        # A layer without any activity has length 0, which nothing may be divided by.
        helper.make_node("ReduceL2", ["hidden1"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "shortest"], ["divisor"]),
        helper.make_node("Div", ["hidden1", "divisor"], ["embedding"]),
    ]

    def tensor(name, width):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])

    graph = helper.make_graph(
        nodes,
        "digits",
        [tensor("pixels", 64)],
        [tensor("embedding", EMBEDDING), tensor("probabilities", 10)],
        [numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    network, pixels, labels = train()
    model = to_onnx(network)
    _, probabilities = onnx.reference.ReferenceEvaluator(model).run(None, {"pixels": pixels.astype(numpy.float32)})
    found = probabilities.argmax(axis=1)
    assert (found == network.predict(pixels / 16)).all(), "the exported model differs from the trained one"
    correct = int((found == labels).sum())
    print(f"held-out accuracy: {correct} of {len(labels)} = {correct / len(labels):.4f}")

    onnx.save(model, FOLDER / "digits.onnx")
    heldout = {"correct": correct, "labels": labels.tolist(), "inputs": pixels.astype(int).tolist()}
    (FOLDER / "heldout.json").write_text(json.dumps(heldout, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
