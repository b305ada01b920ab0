import matplotlib.pyplot as plt
import pytest

import vaelab


def test_a_claim_prints_one_line_and_raises_only_when_strict(monkeypatch, capsys):
    monkeypatch.delenv("VAELAB_STRICT", raising=False)
    vaelab.claim("water is wet", True, measured="100%")
    vaelab.claim("water is dry", False, measured="0%")
    assert (
        capsys.readouterr().out
        == "holds: water is wet [100%]\ndid not hold here: water is dry [0%]\n"
    )
    monkeypatch.setenv("VAELAB_STRICT", "1")
    vaelab.claim("water is wet", True)
    with pytest.raises(AssertionError, match="did not hold here: water is dry"):
        vaelab.claim("water is dry", False)


def test_a_claim_that_its_control_shares_fails(monkeypatch, capsys):
    monkeypatch.delenv("VAELAB_STRICT", raising=False)
    vaelab.claim("the model follows its images", True, control=False, measured="60%, control 1%")
    vaelab.claim("all latents are active", True, control=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "holds: the model follows its images [60%, control 1%]"
    assert said[1].startswith("holds for its control as well")
    monkeypatch.setenv("VAELAB_STRICT", "1")
    with pytest.raises(AssertionError, match="for its control as well"):
        vaelab.claim("all latents are active", True, control=True)


def test_a_table_shows_as_text_and_as_html():
    table = vaelab.table(["what", "nats"], [["a < b", 3.5], ["c", 120]])
    assert repr(table) == "what   nats\na < b   3.5\nc       120"
    assert "a &lt; b" in table._repr_html_() and table._repr_html_().count("<tr>") == 3
    with pytest.raises(ValueError):
        repr(vaelab.table(["what", "nats"], [["too short"]]))


def test_a_prediction_is_compared_only_if_one_was_made(capsys):
    vaelab.compare_prediction(None, "b", "206 nats")
    assert capsys.readouterr().out == ""
    vaelab.compare_prediction(" B ", "b", "206 nats")
    vaelab.compare_prediction("a", "b", "206 nats")
    right, wrong = capsys.readouterr().out.splitlines()
    assert "as you said" in right and "206 nats" in right and "not what you said" in wrong


def test_the_loss_log_grows_by_a_row_and_escapes_html():
    log = vaelab.LossLog()
    end = {"reconstruction": 206.4, "kl": 0.001, "active_units": 0}
    log.add("a < b", 100_352, end)
    assert log.add("healthy", 1.0, end) is log
    assert len(repr(log).splitlines()) == 3 and "100,352" in repr(log)
    assert "a &lt; b" in log._repr_html_() and log._repr_html_().count("<tr>") == 3


def test_figures_are_written_only_where_a_folder_is_named(monkeypatch, tmp_path):
    figure, _ = plt.subplots()
    monkeypatch.delenv("VAELAB_FIGURES", raising=False)
    vaelab.save_figure(figure, "a.png")
    monkeypatch.setenv("VAELAB_FIGURES", str(tmp_path / "figures"))
    vaelab.save_figure(figure, "a.png")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a.png"]
    plt.close(figure)


def test_setup_says_what_it_runs_on(capsys):
    with plt.rc_context():
        device = vaelab.setup()
    assert str(device) in capsys.readouterr().out
