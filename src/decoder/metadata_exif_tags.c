/*
 * metadata_exif_tags.c
 *		Names and kinds of EXIF's tags (CIPA DC-008, version 3.0), and of TIFF's
 *		and Windows' that stand beside them.
 */
#include "decoder/metadata_exif.h"

#include <stddef.h>

static const Tag main_tags[] = {
	{0x00FE, KIND_PLAIN, "NewSubfileType"},
	{0x0100, KIND_PLAIN, "ImageWidth"},
	{0x0101, KIND_PLAIN, "ImageLength"},
	{0x0102, KIND_PLAIN, "BitsPerSample"},
	{0x0103, KIND_PLAIN, "Compression"},
	{0x0106, KIND_PLAIN, "PhotometricInterpretation"},
	{0x010A, KIND_PLAIN, "FillOrder"},
	{0x010D, KIND_PLAIN, "DocumentName"},
	{0x010E, KIND_PLAIN, "ImageDescription"},
	{0x010F, KIND_PLAIN, "Make"},
	{0x0110, KIND_PLAIN, "Model"},
	{0x0111, KIND_SKIPPED, NULL},		/* strips */
	{0x0112, KIND_PLAIN, "Orientation"},
	{0x0115, KIND_PLAIN, "SamplesPerPixel"},
	{0x0116, KIND_PLAIN, "RowsPerStrip"},
	{0x0117, KIND_SKIPPED, NULL},
	{0x011A, KIND_PLAIN, "XResolution"},
	{0x011B, KIND_PLAIN, "YResolution"},
	{0x011C, KIND_PLAIN, "PlanarConfiguration"},
	{0x011D, KIND_PLAIN, "PageName"},
	{0x0128, KIND_PLAIN, "ResolutionUnit"},
	{0x0129, KIND_PLAIN, "PageNumber"},
	{0x012D, KIND_SKIPPED, NULL},		/* transfer function */
	{0x0131, KIND_PLAIN, "Software"},
	{TAG_MODIFIED, KIND_TIME, "DateTime"},
	{0x013B, KIND_PLAIN, "Artist"},
	{0x013C, KIND_PLAIN, "HostComputer"},
	{0x013D, KIND_PLAIN, "Predictor"},
	{0x013E, KIND_PLAIN, "WhitePoint"},
	{0x013F, KIND_PLAIN, "PrimaryChromaticities"},
	{0x0140, KIND_SKIPPED, NULL},		/* colour map */
	{0x0142, KIND_PLAIN, "TileWidth"},
	{0x0143, KIND_PLAIN, "TileLength"},
	{0x0144, KIND_SKIPPED, NULL},		/* tiles */
	{0x0145, KIND_SKIPPED, NULL},
	{0x014A, KIND_SKIPPED, NULL},		/* directories below */
	{0x0152, KIND_PLAIN, "ExtraSamples"},
	{0x0153, KIND_PLAIN, "SampleFormat"},
	{0x015B, KIND_SKIPPED, NULL},		/* JPEG tables */
	{0x0201, KIND_SKIPPED, NULL},		/* the thumbnail's bytes */
	{0x0202, KIND_PLAIN, "JPEGInterchangeFormatLength"},
	{0x0211, KIND_PLAIN, "YCbCrCoefficients"},
	{0x0212, KIND_PLAIN, "YCbCrSubSampling"},
	{0x0213, KIND_PLAIN, "YCbCrPositioning"},
	{0x0214, KIND_PLAIN, "ReferenceBlackWhite"},
	{0x02BC, KIND_SKIPPED, NULL},		/* XMP */
	{0x4746, KIND_PLAIN, "Rating"},
	{0x4749, KIND_PLAIN, "RatingPercent"},
	{0x8298, KIND_PLAIN, "Copyright"},
	{0x83BB, KIND_SKIPPED, NULL},		/* IPTC */
	{0x8649, KIND_SKIPPED, NULL},		/* Photoshop */
	{TAG_EXIF_DIRECTORY, KIND_SKIPPED, NULL},
	{0x8773, KIND_SKIPPED, NULL},		/* ICC profile */
	{TAG_GPS_DIRECTORY, KIND_SKIPPED, NULL},
	{0x9C9B, KIND_UTF16, "XPTitle"},
	{0x9C9C, KIND_UTF16, "XPComment"},
	{0x9C9D, KIND_UTF16, "XPAuthor"},
	{0x9C9E, KIND_UTF16, "XPKeywords"},
	{0x9C9F, KIND_UTF16, "XPSubject"},
	{0xC4A5, KIND_SKIPPED, NULL},		/* print matching */
	{0xEA1C, KIND_SKIPPED, NULL}		/* padding */
};

static const Tag exif_tags[] = {
	{0x829A, KIND_PLAIN, "ExposureTime"},
	{0x829D, KIND_PLAIN, "FNumber"},
	{0x8822, KIND_PLAIN, "ExposureProgram"},
	{0x8824, KIND_PLAIN, "SpectralSensitivity"},
	{0x8827, KIND_PLAIN, "PhotographicSensitivity"},
	{0x8828, KIND_PLAIN, "OECF"},
	{0x8830, KIND_PLAIN, "SensitivityType"},
	{0x8831, KIND_PLAIN, "StandardOutputSensitivity"},
	{0x8832, KIND_PLAIN, "RecommendedExposureIndex"},
	{0x8833, KIND_PLAIN, "ISOSpeed"},
	{0x8834, KIND_PLAIN, "ISOSpeedLatitudeyyy"},
	{0x8835, KIND_PLAIN, "ISOSpeedLatitudezzz"},
	{0x9000, KIND_TEXT, "ExifVersion"},
	{TAG_ORIGINAL, KIND_TIME, "DateTimeOriginal"},
	{TAG_DIGITIZED, KIND_TIME, "DateTimeDigitized"},
	{0x9010, KIND_SKIPPED, NULL},		/* offsets of the three times */
	{0x9011, KIND_SKIPPED, NULL},
	{0x9012, KIND_SKIPPED, NULL},
	{0x9101, KIND_NUMBERS, "ComponentsConfiguration"},
	{0x9102, KIND_PLAIN, "CompressedBitsPerPixel"},
	{0x9201, KIND_PLAIN, "ShutterSpeedValue"},
	{0x9202, KIND_PLAIN, "ApertureValue"},
	{0x9203, KIND_PLAIN, "BrightnessValue"},
	{0x9204, KIND_PLAIN, "ExposureBiasValue"},
	{0x9205, KIND_PLAIN, "MaxApertureValue"},
	{0x9206, KIND_PLAIN, "SubjectDistance"},
	{0x9207, KIND_PLAIN, "MeteringMode"},
	{0x9208, KIND_PLAIN, "LightSource"},
	{0x9209, KIND_PLAIN, "Flash"},
	{0x920A, KIND_PLAIN, "FocalLength"},
	{0x9214, KIND_PLAIN, "SubjectArea"},
	{0x927C, KIND_PLAIN, "MakerNote"},
	{0x9286, KIND_COMMENT, "UserComment"},
	{0x9290, KIND_SKIPPED, NULL},		/* fractions of the three times */
	{0x9291, KIND_SKIPPED, NULL},
	{0x9292, KIND_SKIPPED, NULL},
	{0x9400, KIND_PLAIN, "AmbientTemperature"},
	{0x9401, KIND_PLAIN, "Humidity"},
	{0x9402, KIND_PLAIN, "Pressure"},
	{0x9403, KIND_PLAIN, "WaterDepth"},
	{0x9404, KIND_PLAIN, "Acceleration"},
	{0x9405, KIND_PLAIN, "CameraElevationAngle"},
	{0xA000, KIND_TEXT, "FlashpixVersion"},
	{0xA001, KIND_PLAIN, "ColorSpace"},
	{0xA002, KIND_PLAIN, "PixelXDimension"},
	{0xA003, KIND_PLAIN, "PixelYDimension"},
	{0xA004, KIND_PLAIN, "RelatedSoundFile"},
	{TAG_INTEROPERABILITY, KIND_SKIPPED, NULL},
	{0xA20B, KIND_PLAIN, "FlashEnergy"},
	{0xA20C, KIND_PLAIN, "SpatialFrequencyResponse"},
	{0xA20E, KIND_PLAIN, "FocalPlaneXResolution"},
	{0xA20F, KIND_PLAIN, "FocalPlaneYResolution"},
	{0xA210, KIND_PLAIN, "FocalPlaneResolutionUnit"},
	{0xA214, KIND_PLAIN, "SubjectLocation"},
	{0xA215, KIND_PLAIN, "ExposureIndex"},
	{0xA217, KIND_PLAIN, "SensingMethod"},
	{0xA300, KIND_NUMBERS, "FileSource"},
	{0xA301, KIND_NUMBERS, "SceneType"},
	{0xA302, KIND_PLAIN, "CFAPattern"},
	{0xA401, KIND_PLAIN, "CustomRendered"},
	{0xA402, KIND_PLAIN, "ExposureMode"},
	{0xA403, KIND_PLAIN, "WhiteBalance"},
	{0xA404, KIND_PLAIN, "DigitalZoomRatio"},
	{0xA405, KIND_PLAIN, "FocalLengthIn35mmFilm"},
	{0xA406, KIND_PLAIN, "SceneCaptureType"},
	{0xA407, KIND_PLAIN, "GainControl"},
	{0xA408, KIND_PLAIN, "Contrast"},
	{0xA409, KIND_PLAIN, "Saturation"},
	{0xA40A, KIND_PLAIN, "Sharpness"},
	{0xA40B, KIND_PLAIN, "DeviceSettingDescription"},
	{0xA40C, KIND_PLAIN, "SubjectDistanceRange"},
	{0xA420, KIND_PLAIN, "ImageUniqueID"},
	{0xA430, KIND_PLAIN, "CameraOwnerName"},
	{0xA431, KIND_PLAIN, "BodySerialNumber"},
	{0xA432, KIND_PLAIN, "LensSpecification"},
	{0xA433, KIND_PLAIN, "LensMake"},
	{0xA434, KIND_PLAIN, "LensModel"},
	{0xA435, KIND_PLAIN, "LensSerialNumber"},
	{0xA436, KIND_PLAIN, "ImageTitle"},
	{0xA437, KIND_PLAIN, "Photographer"},
	{0xA438, KIND_PLAIN, "ImageEditor"},
	{0xA439, KIND_PLAIN, "CameraFirmware"},
	{0xA43A, KIND_PLAIN, "RAWDevelopingSoftware"},
	{0xA43B, KIND_PLAIN, "ImageEditingSoftware"},
	{0xA43C, KIND_PLAIN, "MetadataEditingSoftware"},
	{0xA460, KIND_PLAIN, "CompositeImage"},
	{0xA461, KIND_PLAIN, "SourceImageNumberOfCompositeImage"},
	{0xA462, KIND_PLAIN, "SourceExposureTimesOfCompositeImage"},
	{0xA500, KIND_PLAIN, "Gamma"},
	{0xEA1C, KIND_SKIPPED, NULL}		/* padding */
};

/* What place and time are made of comes as latitude, longitude, altitude and GPSDateTime. */
static const Tag gps_tags[] = {
	{0, KIND_PLAIN, "GPSVersionID"},
	{GPS_LATITUDE_REFERENCE, KIND_SKIPPED, NULL},
	{GPS_LATITUDE, KIND_SKIPPED, NULL},
	{GPS_LONGITUDE_REFERENCE, KIND_SKIPPED, NULL},
	{GPS_LONGITUDE, KIND_SKIPPED, NULL},
	{GPS_ALTITUDE_REFERENCE, KIND_SKIPPED, NULL},
	{GPS_ALTITUDE, KIND_SKIPPED, NULL},
	{GPS_TIME, KIND_SKIPPED, NULL},
	{8, KIND_PLAIN, "GPSSatellites"},
	{9, KIND_PLAIN, "GPSStatus"},
	{10, KIND_PLAIN, "GPSMeasureMode"},
	{11, KIND_PLAIN, "GPSDOP"},
	{12, KIND_PLAIN, "GPSSpeedRef"},
	{13, KIND_PLAIN, "GPSSpeed"},
	{14, KIND_PLAIN, "GPSTrackRef"},
	{15, KIND_PLAIN, "GPSTrack"},
	{16, KIND_PLAIN, "GPSImgDirectionRef"},
	{17, KIND_PLAIN, "GPSImgDirection"},
	{18, KIND_PLAIN, "GPSMapDatum"},
	{19, KIND_PLAIN, "GPSDestLatitudeRef"},
	{20, KIND_PLAIN, "GPSDestLatitude"},
	{21, KIND_PLAIN, "GPSDestLongitudeRef"},
	{22, KIND_PLAIN, "GPSDestLongitude"},
	{23, KIND_PLAIN, "GPSDestBearingRef"},
	{24, KIND_PLAIN, "GPSDestBearing"},
	{25, KIND_PLAIN, "GPSDestDistanceRef"},
	{26, KIND_PLAIN, "GPSDestDistance"},
	{27, KIND_COMMENT, "GPSProcessingMethod"},
	{28, KIND_COMMENT, "GPSAreaInformation"},
	{GPS_DATE, KIND_SKIPPED, NULL},
	{30, KIND_PLAIN, "GPSDifferential"},
	{31, KIND_PLAIN, "GPSHPositioningError"}
};

static const Tag interoperability_tags[] = {
	{1, KIND_PLAIN, "InteroperabilityIndex"},
	{2, KIND_TEXT, "InteroperabilityVersion"},
	{0x1000, KIND_PLAIN, "RelatedImageFileFormat"},
	{0x1001, KIND_PLAIN, "RelatedImageWidth"},
	{0x1002, KIND_PLAIN, "RelatedImageLength"}
};

#define TAGS(table) {table, sizeof(table) / sizeof((table)[0])}

static const struct
{
	const Tag  *tags;
	size_t		n_tags;
}			directories[DIRECTORY_COUNT] = {
	[DIRECTORY_MAIN] = TAGS(main_tags),
	[DIRECTORY_EXIF] = TAGS(exif_tags),
	[DIRECTORY_GPS] = TAGS(gps_tags),
	[DIRECTORY_INTEROPERABILITY] = TAGS(interoperability_tags)
};

const Tag *
exif_find_tag(Directory directory, unsigned int number)
{
	size_t		i;

	for (i = 0; i < directories[directory].n_tags; i++)
	{
		if (directories[directory].tags[i].tag == number)
			return &directories[directory].tags[i];
	}
	return NULL;
}
