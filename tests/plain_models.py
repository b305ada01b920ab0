"""VAEs as people write them, without anything of vaelab: what every measurement has to take."""

import torch
import torch.nn.functional as F
from torch import nn


class ExamplesVAE(nn.Module):
    """The VAE of pytorch/examples as it is copied: five linear layers, a functional sigmoid."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


class FlatVAE(ExamplesVAE):
    """The same, fed with images that the training loop has made flat."""

    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


class ConvolutionalVAE(nn.Module):
    """Strided convolutions, BatchNorm and an nn.Sigmoid at the end, under names of their own."""

    def __init__(self, channels=1, side=28, latent_dim=8):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(channels, 8, 4, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        small = side // 4
        self.to_mu = nn.Linear(16 * small * small, latent_dim)
        self.to_logvar = nn.Linear(16 * small * small, latent_dim)
        self.up = nn.Sequential(
            nn.Linear(latent_dim, 16 * small * small),
            nn.Unflatten(1, (16, small, small)),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, channels, 4, 2, 1),
            nn.Sigmoid(),
        )

    def decode(self, z):
        return self.up(z)

    def forward(self, x):
        h = self.down(x)
        mu, logvar = self.to_mu(h), self.to_logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.up(z), mu, logvar


class ConditionalVAE(nn.Module):
    """The label goes into the encoder and the decoder as a one-hot vector."""

    def __init__(self, latent_dim=8, classes=10):
        super().__init__()
        self.classes = classes
        self.encoder = nn.Sequential(nn.Linear(784 + classes, 200), nn.ReLU())
        self.heads = nn.Linear(200, 2 * latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim + classes, 200), nn.ReLU(), nn.Linear(200, 784), nn.Sigmoid()
        )

    def decode(self, z, labels):
        one_hot = F.one_hot(labels, self.classes).to(z.dtype)
        return self.decoder(torch.cat([z, one_hot], 1))

    def forward(self, x, labels):
        one_hot = F.one_hot(labels, self.classes).to(x.dtype)
        h = self.encoder(torch.cat([x.flatten(1), one_hot], 1))
        mu, logvar = self.heads(h).chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z, labels), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    """The loss of pytorch/examples: summed cross-entropy and summed KL."""
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD


def plain_models():
    """name -> (model, keyword arguments that measurements need for it), all untrained, 28x28."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 10
    compiled = torch.compile(ExamplesVAE(), backend="eager")
    return {
        "pytorch/examples": (ExamplesVAE(), {}),
        "flat input": (FlatVAE(), {}),
        "convolutional": (ConvolutionalVAE(), {}),
        "conditional": (ConditionalVAE(), {"inputs": labels}),
        "compiled": (compiled, {}),
        "half precision": (ExamplesVAE().bfloat16(), {}),
    }
