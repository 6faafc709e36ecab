"""Whether TensorBoard's own reader finds in our event files what was written. Exits 77 (skipped) without the package `tensorboard`.

usage: tensorboard_reads.py PATH/TO/tensorboard_sample
"""
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
    from tensorboard.util import tensor_util
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)


def expected_loss(step):
    return 4.0 - 0.125 * step if step < 20 else 100.0 + step


with tempfile.TemporaryDirectory() as directory:
    subprocess.run([sys.argv[1], directory], check=True)

    run = EventAccumulator(directory, size_guidance={"scalars": 0, "histograms": 0})
    run.Reload()
    assert run.Tags()["scalars"] == ["train/loss", "train/scale"], run.Tags()
    losses = run.Scalars("train/loss")
    assert [(e.step, e.wall_time, e.value) for e in losses] == [(i, 1.7e9 + i, expected_loss(i)) for i in range(40)], losses
    histograms = run.Histograms("grad")
    assert [e.step for e in histograms] == list(range(40))
    h = histograms[7].histogram_value
    assert (h.min, h.max, h.num, h.sum, h.sum_squares) == (-1.0, 1.5, 6, 14.0, 4.5), h
    assert (list(h.bucket_limit), list(h.bucket)) == ([-0.5, 0.0, 2.0], [1, 2, 3]), h

    # The reader behind the web page: it turns both kinds into tensors of the plugins that draw them.
    page = PluginEventAccumulator(directory, size_guidance={"tensors": 0})
    page.Reload()
    assert page.SummaryMetadata("train/loss").plugin_data.plugin_name == "scalars"
    assert page.SummaryMetadata("grad").plugin_data.plugin_name == "histograms"
    drawn = [(e.step, tensor_util.make_ndarray(e.tensor_proto).item()) for e in page.Tensors("train/loss")]
    assert drawn == [(i, expected_loss(i)) for i in range(40)], drawn

print("tensorboard reads 40 steps of 2 scalars and a histogram, across a resume")
