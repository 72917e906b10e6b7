"""The papers that formulas and presets come from: their titles, and entries of BibTeX."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Paper:
    """A paper as BibTeX has it.

    Attributes:
        kind: of the entry, such as "article".
        key: by which it is cited.
        authors: first and last names.
        title: with capitals as in print.
        year: of publication.
        fields: what else the entry has, such as journal and pages.
        venue: where it was published, for a line of text.
    """

    kind: str
    key: str
    authors: tuple[str, ...]
    title: str
    year: int
    venue: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def bibtex(self) -> str:
        """The entry."""
        rows = {
            "author": " and ".join(self.authors),
            "title": f"{{{self.title}}}",
            "year": str(self.year),
            **self.fields,
        }
        lines = [f"  {name:9s} = {{{value}}}," for name, value in rows.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


_MONTAVON, _SAMEK, _MUELLER = "Grégoire Montavon", "Wojciech Samek", "Klaus-Robert Müller"
_LAPUSCHKIN, _BINDER = "Sebastian Lapuschkin", "Alexander Binder"

PAPERS: Mapping[str, Paper] = MappingProxyType(
    {
        "Achtibat et al. 2024": Paper(
            "inproceedings",
            "achtibat2024attnlrp",
            (
                *("Reduan Achtibat", "Sayed Mohammad Vakilzadeh Hatefi", "Maximilian Dreyer", "Aakriti Jain"),
                *("Thomas Wiegand", _LAPUSCHKIN, _SAMEK),
            ),
            "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers",
            2024,
            "ICML.",
            {
                "booktitle": "International Conference on Machine Learning (ICML)",
                "series": "Proceedings of Machine Learning Research",
                "volume": "235",
            },
        ),
        "Ali et al. 2022": Paper(
            "inproceedings",
            "ali2022xai",
            ("Ameen Ali", "Thomas Schnake", "Oliver Eberle", _MONTAVON, _MUELLER, "Lior Wolf"),
            "XAI for Transformers: Better Explanations through Conservative Propagation",
            2022,
            "ICML.",
            {
                "booktitle": "International Conference on Machine Learning (ICML)",
                "series": "Proceedings of Machine Learning Research",
                "volume": "162",
            },
        ),
        "Andéol et al. 2021": Paper(
            "misc",
            "andeol2021learning",
            (
                *("Léo Andéol", "Yusei Kawakami", "Yuichiro Wada", "Takafumi Kanamori", _MUELLER),
                _MONTAVON,
            ),
            "Learning Domain Invariant Representations by Joint Wasserstein Distance Minimization",
            2021,
            "",
            {"eprint": "2106.04923", "archiveprefix": "arXiv"},
        ),
        "Arras et al. 2017": Paper(
            "inproceedings",
            "arras2017explaining",
            ("Leila Arras", _MONTAVON, _MUELLER, _SAMEK),
            "Explaining Recurrent Neural Network Predictions in Sentiment Analysis",
            2017,
            "WASSA.",
            {
                "booktitle": "Workshop on Computational Approaches to Subjectivity, Sentiment and Social "
                "Media Analysis (WASSA)",
            },
        ),
        "Bach et al. 2015": Paper(
            "article",
            "bach2015pixel",
            ("Sebastian Bach", _BINDER, _MONTAVON, "Frederick Klauschen", _MUELLER, _SAMEK),
            "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
            "Propagation",
            2015,
            "PLOS ONE 10(7).",
            {"journal": "PLOS ONE", "volume": "10", "number": "7", "pages": "e0130140"},
        ),
        "Ding et al. 2017": Paper(
            "inproceedings",
            "ding2017visualizing",
            ("Yanzhuo Ding", "Yang Liu", "Huanbo Luan", "Maosong Sun"),
            "Visualizing and Understanding Neural Machine Translation",
            2017,
            "ACL.",
            {
                "booktitle": "Annual Meeting of the Association for Computational Linguistics (ACL)",
                "pages": "1150--1159",
            },
        ),
        "Jafari et al. 2024": Paper(
            "inproceedings",
            "jafari2024mambalrp",
            ("Farnoush Rezaei Jafari", _MONTAVON, _MUELLER, "Oliver Eberle"),
            "MambaLRP: Explaining Selective State Space Sequence Models",
            2024,
            "NeurIPS.",
            {"booktitle": "Advances in Neural Information Processing Systems (NeurIPS)", "volume": "37"},
        ),
        "Kohlbrenner et al. 2020": Paper(
            "inproceedings",
            "kohlbrenner2020towards",
            (
                *("Maximilian Kohlbrenner", "Alexander Bauer", "Shinichi Nakajima", _BINDER, _SAMEK),
                _LAPUSCHKIN,
            ),
            "Towards Best Practice in Explaining Neural Network Decisions with LRP",
            2020,
            "IJCNN.",
            {"booktitle": "International Joint Conference on Neural Networks (IJCNN)"},
        ),
        "Lapuschkin et al. 2019": Paper(
            "article",
            "lapuschkin2019unmasking",
            (_LAPUSCHKIN, "Stephan Wäldchen", _BINDER, _MONTAVON, _SAMEK, _MUELLER),
            "Unmasking Clever Hans Predictors and Assessing What Machines Really Learn",
            2019,
            "Nature Communications 10.",
            {"journal": "Nature Communications", "volume": "10", "pages": "1096"},
        ),
        "Montavon et al. 2017": Paper(
            "article",
            "montavon2017explaining",
            (_MONTAVON, _LAPUSCHKIN, _BINDER, _SAMEK, _MUELLER),
            "Explaining Nonlinear Classification Decisions with Deep Taylor Decomposition",
            2017,
            "Pattern Recognition 65.",
            {"journal": "Pattern Recognition", "volume": "65", "pages": "211--222"},
        ),
        "Montavon et al. 2019": Paper(
            "incollection",
            "montavon2019layer",
            (_MONTAVON, _BINDER, _LAPUSCHKIN, _SAMEK, _MUELLER),
            "Layer-Wise Relevance Propagation: An Overview",
            2019,
            "In: Explainable AI, LNCS 11700, ch. 10.",
            {
                "booktitle": "Explainable AI: Interpreting, Explaining and Visualizing Deep Learning",
                "series": "Lecture Notes in Computer Science",
                "volume": "11700",
                "pages": "193--209",
            },
        ),
        "Otsuki et al. 2024": Paper(
            "inproceedings",
            "otsuki2024layer",
            (
                *("Seitaro Otsuki", "Tsumugi Iida", "Félix Doublet", "Tsubasa Hirakawa"),
                *("Takayoshi Yamashita", "Hironobu Fujiyoshi", "Komei Sugiura"),
            ),
            "Layer-Wise Relevance Propagation with Conservation Property for ResNet",
            2024,
            "ECCV.",
            {"booktitle": "European Conference on Computer Vision (ECCV)"},
        ),
        "Simonyan et al. 2014": Paper(
            "inproceedings",
            "simonyan2014deep",
            ("Karen Simonyan", "Andrea Vedaldi", "Andrew Zisserman"),
            "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps",
            2014,
            "ICLR workshop.",
            {"booktitle": "International Conference on Learning Representations (ICLR), workshop"},
        ),
        "Zhang et al. 2016": Paper(
            "inproceedings",
            "zhang2016top",
            ("Jianming Zhang", "Zhe Lin", "Jonathan Brandt", "Xiaohui Shen", "Stan Sclaroff"),
            "Top-Down Neural Attention by Excitation Backprop",
            2016,
            "ECCV.",
            {"booktitle": "European Conference on Computer Vision (ECCV)"},
        ),
    }
)
"""What formulas and presets name as their source."""

REFERENCES: Mapping[str, str] = MappingProxyType(
    {name: f"{paper.title}. {paper.venue}".rstrip() for name, paper in PAPERS.items()}
)
"""Title and place of each paper, as a line of text."""


def papers_in(text: str) -> list[Paper]:
    """The papers that a text names as sources."""
    words = " ".join(text.split())
    return [paper for name, paper in PAPERS.items() if name in words]


def bibliography(texts: Iterable[str]) -> str:
    """BibTeX entries of the papers that texts name, each once, in the order of their names."""
    named = [papers_in(text) for text in texts]
    return "\n\n".join(p.bibtex() for p in PAPERS.values() if any(p in found for found in named))
