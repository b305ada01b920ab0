"""What was measured, as short texts: the lower half of a report."""

from .noise import RIGHT
from .observation import FEWEST_IMAGES
from .observe import THRESHOLD_IMAGES
from .report import span


def numbers(seen):
    """Name -> text, from an `Observation`."""
    found = _of_the_rows(seen)
    if seen.form is not None:
        found |= _of_the_loss(seen.form, seen.loss, len(seen.x_all))
    if seen.picture is not None:
        found |= _of_the_picture(seen, seen.picture)
    if seen.codes is not None:
        found |= _of_the_codes(seen, seen.codes)
    if seen.beside is not None:
        found |= _of_training_rows(seen.beside)
    for name, why in seen.unmeasured.items():
        found[f"not measured: {name}"] = why
    return found


def _of_the_rows(seen):
    found = {"x": f"{list(seen.x_all.shape)}, values {span(seen.x_all)}"}
    if len(seen.x) < len(seen.x_all):
        found["rows used"] = f"the first {len(seen.x)}, {seen.budget.chosen} where it is slow"
    if not seen.comparable and not seen.broken:
        few = f"fewer than {FEWEST_IMAGES} different ones"
        found["too few images"] = f"{few}: collapse and the prior were not checked"
    if seen.patient.how:
        sampling = "" if seen.patient.own_noise else "; its own sampling was not seen"
        found["called as"] = seen.patient.how + sampling
    return found


def _of_the_codes(seen, codes):
    room = f"room for at most {codes.information:.3g} nats about the image"
    if seen.noise is not None and seen.noise.formula != RIGHT:
        room = f"as if the noise were {RIGHT}"
    active = f"{codes.active} of {codes.latents} active units"
    found = {"codes": f"KL {codes.kl.sum():.3g} nats, {active}, {room}"}
    if seen.decoding is not None:
        swapped, own = seen.decoding.swapped, seen.decoding.own
        found["with another image's code"] = f"{swapped:.3g}, with its own {own:.3g}"
    if seen.patient.purpose == "autoencoding":
        found["scale factor of the codes"] = f"{1 / codes.z.std().item():.4g}, 1 / std"
    if seen.prior is not None:
        accuracy = f"accuracy {seen.prior.accuracy:.2f}"
        found["codes told from the prior"] = f"{accuracy}, where 0.5 is best"
    return found


def _of_training_rows(beside):
    found = {"x told from x_train": f"accuracy {beside.accuracy:.2f}, where 0.5 is chance"}
    if beside.train_error is not None:
        found["error on x over that on x_train"] = f"{beside.ratio:.3g}"
    return found


def _of_the_loss(form, loss, images):
    source = "" if loss.given else "the model's own likelihood, as no loss was given: "
    extras = ", free bits" if form.kl.free_bits else ""
    extras = ", held at a capacity" if form.kl.capacity else extras
    found = {"loss": f"{source}{form.name or 'not recognised'}; KL {form.kl.kind}{extras}"}
    if form.order:
        found["loss is called with"] = form.order
    if form.a is not None and form.b is not None:
        found["weights per image"] = f"error {form.a:.4g}, KL {form.b:.4g}"
        found["measured at batch size"] = f"{form.fixed_size or form.batch_size}"
    if form.fixed_size:
        found["batch size"] = f"the loss works at {form.fixed_size} images only"
    if form.coarse:
        found["precision"] = "the loss computes in half precision: its weights are rough"
    beta = form.beta is not None
    value = form.beta if beta else form.sigma2
    if value is not None:
        found["effective beta" if beta else "implied sigma^2"] = f"{value:.4g}"
    if value is not None and loss.threshold:
        images = f"{min(images, THRESHOLD_IMAGES):,} images"
        found["collapse threshold"] = f"{loss.threshold:.3g}, from {images}"
        found["this loss over the threshold"] = f"{value / loss.threshold:.2g}"
    return found


def _of_the_picture(seen, picture):
    ending, link = seen.endings.reconstruction.name, picture.error.link
    end = f", ending in {ending}" if ending else ""
    link = f" (shown through {link})" if link not in ("identity", "likelihood") else ""
    mean_image = f"of the mean image {picture.mean_image_mse:.3g}"
    found = {
        "outputs": f"values {span(seen.outputs.reconstruction)}{end}{link}",
        "mean squared error": f"{picture.mse:.3g}, {mean_image}",
    }
    if seen.comparable:
        found["outputs follow the images"] = f"{picture.follows:.1%} of the data's variance"
    return found
