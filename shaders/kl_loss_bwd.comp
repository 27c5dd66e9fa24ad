#version 450
#extension GL_GOOGLE_include_directive : require
#include "kl_loss.glsl"

ARGS(kl_loss_bwd_args)
IN(1, dloss)
IN(2, student)
IN(3, teacher)
OUT(4, dstudent)

// A workgroup takes a row. dstudent may be student: an element is written by who read it last.
void main()
{
    uint row = GROUP;
    if (row >= p.rows)
        return;
    uint s_at = p.student_at + row * p.student_ld, t_at = p.teacher_at + row * p.teacher_ld;
    vec2 of_student, of_teacher;
    LOG_SUM_EXP(of_student, student, s_at, p.cols, p.scale)
    LOG_SUM_EXP(of_teacher, teacher, t_at, p.cols, p.scale)
    float g = dloss.v[p.dloss_at] * p.factor / float(p.rows);
    for (uint c = LANE; c < p.cols; c += LANES)
        dstudent.v[p.dstudent_at + row * p.dstudent_ld + c] =
            g * difference(pair_of(student.v[s_at + c], teacher.v[t_at + c], of_student,
                                   of_teacher, p.scale));
}
