"""The titles of the papers that formulas and presets come from."""

from collections.abc import Mapping
from types import MappingProxyType

REFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "Achtibat et al. 2024": "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers. "
        "ICML.",
        "Ali et al. 2022": "XAI for Transformers: Better Explanations through Conservative Propagation. "
        "ICML.",
        "Andéol et al. 2021": "Learning Domain Invariant Representations by Joint Wasserstein Distance "
        "Minimization.",
        "Arras et al. 2017": "Explaining Recurrent Neural Network Predictions in Sentiment Analysis. WASSA.",
        "Bach et al. 2015": "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise "
        "Relevance Propagation. PLOS ONE 10(7).",
        "Kohlbrenner et al. 2020": "Towards Best Practice in Explaining Neural Network Decisions with LRP. "
        "IJCNN.",
        "Lapuschkin et al. 2019": "Unmasking Clever Hans Predictors and Assessing What Machines Really "
        "Learn. Nature Communications 10.",
        "Montavon et al. 2017": "Explaining Nonlinear Classification Decisions with Deep Taylor "
        "Decomposition. Pattern Recognition 65.",
        "Montavon et al. 2019": "Layer-Wise Relevance Propagation: An Overview. In: Explainable AI, LNCS "
        "11700, ch. 10.",
        "Otsuki et al. 2024": "Layer-Wise Relevance Propagation with Conservation Property for ResNet. ECCV.",
        "Simonyan et al. 2014": "Deep Inside Convolutional Networks: Visualising Image Classification Models "
        "and Saliency Maps. ICLR workshop.",
        "Zhang et al. 2016": "Top-Down Neural Attention by Excitation Backprop. ECCV.",
    }
)
"""Titles of what formulas and presets name as their source."""
